"""What counts: weights, the four reductions and the last step, against NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxbptt as jb
from tests import oracles
from tests.cases import CELLS, EACH_ADJOINT, EXACT_ESTIMATORS, assert_close, in_turn, problem

GRU, LSTM = (next(case for case in CELLS if case.name == name) for name in ("gru", "lstm"))
T, B = 5, 3
LENGTHS = np.array([5, 2, 0])
# A sequence that counts nowhere, steps of no weight, and none that sum to 1.
WEIGHTS = np.random.default_rng(0).uniform(0.2, 3.0, (T, B))
WEIGHTS[1] = WEIGHTS[:, 2] = 0
REAL = np.arange(T)[:, None] < LENGTHS
REDUCTIONS = ("mean", "sum", "sequences", "none")


def reduced(L, w, reduction):
    """F of losses and weights ``[T, B]``, number by number."""
    totals, counts = [0.0] * w.shape[1], [0.0] * w.shape[1]
    for t, b in np.ndindex(w.shape):
        if w[t, b] != 0:
            totals[b], counts[b] = totals[b] + w[t, b] * L[t][b], counts[b] + w[t, b]
    if reduction == "sum":
        return sum(totals)
    if reduction == "mean":
        return sum(totals) / sum(counts) if sum(counts) else 0.0
    means = [total / count if count else 0.0 for total, count in zip(totals, counts, strict=True)]
    counted = sum(count != 0 for count in counts)
    return np.array(means) if reduction == "none" else sum(means) / max(counted, 1)


def losses(given, theta, h_0, xs):
    """L_t of every step as a list of ``[B]``, and the states, by NumPy."""
    hs = oracles.states(given.case.step, theta.h, list(xs), h_0)[1:]
    y_hats = [np.einsum("mn,bn->bm", theta.o.W_o, given.case.output(h)) + theta.o.b for h in hs]
    return [oracles.half_square(y_hat, y) for y_hat, y in zip(y_hats, np.asarray(given.ys), strict=True)], hs


def by_numpy(given, w, reduction, v=None):
    """F, and its gradient (that of v · F) with respect to (theta, xs, h_0), by the complex step."""
    arrays, treedef = jax.tree.flatten(jax.tree.map(np.asarray, (given.theta, given.xs, given.h_0)))

    def F(arrays):
        theta, xs, h_0 = treedef.unflatten(arrays)
        value = reduced(losses(given, theta, h_0, xs)[0], w, reduction)
        return value if v is None else np.sum(v * value)

    bars = treedef.unflatten(oracles.gradient(F, arrays))
    theta, xs, h_0 = treedef.unflatten(arrays)
    return reduced(losses(given, theta, h_0, xs)[0], w, reduction), bars


def assert_all_close(found, wanted):
    for leaf, wanted_leaf in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
        np.testing.assert_allclose(leaf, wanted_leaf, rtol=1e-11, atol=1e-13)


GIVEN = {case.name: problem(case, T=T, batch=(B,), seed=12) for case in (GRU, LSTM)}
ASKED = {
    "weights": (WEIGHTS, {"mask": jnp.asarray(WEIGHTS)}),
    "both": (WEIGHTS * REAL, {"mask": jnp.asarray(WEIGHTS), "lengths": jnp.asarray(LENGTHS)}),
    "mask": (WEIGHTS > 1, {"mask": jnp.asarray(WEIGHTS > 1)}),
    "mask-and-lengths": ((WEIGHTS > 1) & REAL, {"mask": jnp.asarray(WEIGHTS > 1), "lengths": jnp.asarray(LENGTHS)}),
}


@pytest.mark.parametrize(("reduction", "what", "adjoint"), in_turn(REDUCTIONS, ASKED, EACH_ADJOINT, times=2))
def test_weighted_sums_of_every_kind(reduction, what, adjoint):
    """Targets of no weight are NaN."""
    w, asked = what
    given = GIVEN["gru"]
    v = np.array([1.5, -0.5, 2.0]) if reduction == "none" else None
    wanted = by_numpy(given, w.astype(float), reduction, v)
    F = jb.objective(given.model, jb.losses.l2_loss, adjoint=adjoint, reduction=reduction)
    ys = jnp.where(jnp.asarray(w != 0)[..., None], given.ys, jnp.nan)
    value, pull = jax.vjp(
        jax.jit(lambda theta, xs, h_0: F(theta, xs, ys, h_0, **asked)), given.theta, given.xs, given.h_0
    )
    np.testing.assert_allclose(value, wanted[0], rtol=1e-12)
    assert_all_close(pull(jnp.float64(1.0) if v is None else jnp.asarray(v)), wanted[1])


@pytest.mark.parametrize(("make", "reduction", "what"), in_turn(EXACT_ESTIMATORS, ["mean", "sum"], ASKED, times=2))
def test_weights_in_estimators(make, reduction, what):
    w, asked = what
    given = GIVEN["gru"]
    estimator = make(given.model, jb.losses.l2_loss, reduction=reduction)
    update = jax.jit(estimator.update)
    estimate, _ = update(given.theta, estimator.init(given.theta, given.h_0), given.xs, given.ys, **asked)
    value, (theta_bar, _, _) = by_numpy(given, w.astype(float), reduction)
    np.testing.assert_allclose(estimate.loss, value, rtol=1e-12)
    assert_close(estimate.grads, theta_bar, 1e-11)


@pytest.mark.parametrize(("adjoint", "reduction"), in_turn(EACH_ADJOINT, REDUCTIONS))
def test_where_nothing_counts_all_is_zero(adjoint, reduction):
    """By a mask, by weights and by lengths, though the targets are NaN."""
    given = GIVEN["lstm"]
    F = jb.objective(given.model, jb.losses.l2_loss, adjoint=adjoint, reduction=reduction)
    ys = jnp.full_like(given.ys, jnp.nan)
    gradient = jax.jit(jax.value_and_grad(lambda *of, **asked: jnp.sum(F(*of, **asked)), (0, 1, 2, 3)))
    for asked in (
        {"mask": jnp.zeros((T, B), bool)},
        {"mask": jnp.zeros((T, B))},
        {"lengths": jnp.zeros(B, jnp.int32)},
        {"mask": jnp.asarray(~REAL), "lengths": jnp.asarray(LENGTHS)},
    ):
        found = gradient(given.theta, given.xs, ys, given.h_0, **asked)
        assert all(np.all(np.asarray(leaf) == 0) for leaf in jax.tree.leaves(found))


@pytest.mark.parametrize(("adjoint", "reduction"), in_turn(EACH_ADJOINT, ["sum", "mean"]))
def test_the_slope_in_a_weight(adjoint, reduction):
    """Weights may be computed: of a sum it is L_t, of any sign, and of a mean (L_t - F) / Σ w."""
    given = GIVEN["gru"]
    w = jnp.asarray(np.where(WEIGHTS == 0, -1.0, WEIGHTS))
    Ls = np.real(losses(given, *(jax.tree.map(np.asarray, tree) for tree in (given.theta, given.h_0, given.xs)))[0])
    F = jb.objective(given.model, jb.losses.l2_loss, adjoint=adjoint, reduction=reduction)
    value, bar = jax.jit(jax.value_and_grad(lambda w: F(given.theta, given.xs, given.ys, given.h_0, mask=w)))(w)
    total = np.sum(np.asarray(w) * Ls)
    wanted = (total, Ls) if reduction == "sum" else (total / np.sum(w), (Ls - total / np.sum(w)) / np.sum(w))
    np.testing.assert_allclose(value, wanted[0], rtol=1e-12)
    np.testing.assert_allclose(bar, wanted[1], rtol=1e-11)


def at_last(given, w, lengths, reduction="mean"):
    """F of each member's last state, by NumPy and the complex step."""
    arrays, treedef = jax.tree.flatten(jax.tree.map(np.asarray, (given.theta, given.xs, given.h_0)))

    def F(arrays):
        Ls = losses(given, *(treedef.unflatten(arrays)[k] for k in (0, 2, 1)))[0]
        L = np.array([Ls[length - 1][b] if length else 0 for b, length in enumerate(lengths)])
        return reduced([L], np.asarray(w, float)[None] * (np.asarray(lengths) > 0), reduction)

    return np.real(F(arrays)), treedef.unflatten(oracles.gradient(F, arrays))


@pytest.mark.parametrize(
    ("adjoint", "reduction", "asked"),
    in_turn(EACH_ADJOINT, ["mean", "sum", "sequences"], ["all", "lengths", "mask", "weights-and-lengths"], times=2),
)
def test_the_last_step_alone(adjoint, reduction, asked):
    given, one = GIVEN["lstm"], np.ones(B)
    lengths = LENGTHS if "lengths" in asked else np.full(B, T)
    w = {"all": one, "lengths": one, "mask": one * [1, 0, 1], "weights-and-lengths": one * [0.5, 2.5, 1]}[asked]
    # One target a member, which NumPy is given at every step.
    given = given._replace(ys=jnp.broadcast_to(given.ys[0], given.ys.shape))
    value, bars = at_last(given, w, lengths, reduction)
    more = {"lengths": jnp.asarray(lengths)} if "lengths" in asked else {}
    more |= {"mask": jnp.asarray(w)} if "weights" in asked else {}
    more |= {"mask": jnp.asarray(w, bool)} if asked == "mask" else {}
    real = np.arange(T)[:, None] < lengths
    xs = jnp.where(real[..., None], given.xs, jnp.nan)
    y = jnp.where(jnp.asarray(w * (lengths > 0))[:, None] != 0, given.ys[0], jnp.nan)
    F = jb.objective(given.model, jb.losses.l2_loss, adjoint=adjoint, reduction=reduction, at="last")
    found = jax.jit(jax.value_and_grad(F, (0, 1, 3)))(given.theta, xs, y, given.h_0, **more)
    np.testing.assert_allclose(found[0], value, rtol=1e-12)
    assert_all_close(found[1], bars)


@pytest.mark.parametrize(("adjoint", "at"), in_turn(EACH_ADJOINT, ["steps", "last"]))
def test_aux_changes_no_number(adjoint, at):
    """Value and gradient are those without; ŷ's and h_T are those of `apply`."""
    given = GIVEN["lstm"]
    ys = given.ys[-1] if at == "last" else given.ys
    asked = {"mask": jnp.asarray(WEIGHTS)[0] if at == "last" else jnp.asarray(WEIGHTS)}
    plain, with_aux = (
        jb.objective(given.model, jb.losses.l2_loss, adjoint=adjoint, at=at, has_aux=has_aux)
        for has_aux in (False, True)
    )
    arguments = given.theta, given.xs, ys, given.h_0
    wanted = jax.jit(jax.value_and_grad(plain))(*arguments, **asked)
    (value, aux), bar = jax.jit(jax.value_and_grad(with_aux, has_aux=True))(*arguments, **asked)
    np.testing.assert_allclose(value, wanted[0], rtol=1e-13)
    assert_close(bar, wanted[1], 1e-12)
    y_hats, h_T = given.model.apply(given.theta, given.xs, given.h_0, return_state=True)
    np.testing.assert_allclose(aux.y_hats, y_hats[-1:] if at == "last" else y_hats, rtol=1e-12)
    assert_close(aux.h_T, h_T, 1e-12)


def test_the_batch_is_read_from_lengths_and_masks():
    """Integers of which f reads nothing: alone they would be [T, *batch], and are [T, *batch, features]."""
    cell = jb.cells.from_step(
        lambda theta_h, x_t, h_tm1: jnp.tanh(theta_h * (h_tm1 + 1)),
        initial_state=lambda theta_h, batch_shape=(): jnp.zeros((*batch_shape, 2)),
    )
    model, theta = jb.rnn(cell, jb.readouts.identity()), jb.Theta(jnp.array(0.5), ())
    xs = jnp.ones((T, B, 4), int)
    assert model.apply(theta, xs).shape == (T, B, 4, 2)
    assert model.apply(theta, xs, lengths=jnp.asarray(LENGTHS)).shape == (T, B, 2)
    assert model.apply(theta, xs, mask=jnp.ones((T, B), bool)).shape == (T, B, 2)
    F, ys = jb.objective(model, jb.losses.l2_loss), jnp.zeros((T, B, 2))
    wanted = F(theta, xs, ys, jnp.zeros((B, 2)))
    np.testing.assert_allclose(F(theta, xs, ys, mask=jnp.ones((T, B), bool)), wanted, rtol=1e-13)
    np.testing.assert_allclose(F(theta, xs, ys, lengths=jnp.full(B, T)), wanted, rtol=1e-13)
