"""Laws 2, 3 and 5: every exact order of evaluation gives the gradient that NumPy and the complex step give."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxbptt as jb
from tests import cases
from tests.cases import ADJOINTS, CELLS, EXACT_ESTIMATORS, ONLINE_ESTIMATORS, assert_close, oracle, problem

cell_cases = pytest.mark.parametrize("case", CELLS, ids=cases.name)


def gradient(problem, adjoint, mask=None):
    """F and ∂F/∂(θ, xs, h_0) by `adjoint`; flags in xs get None."""
    F = jb.objective(problem.model, jb.losses.l2_loss, adjoint=adjoint)
    allow = jax.value_and_grad(F, argnums=(0, 1, 3), allow_int=True)
    value, (theta_bar, xs_bar, h_0_bar) = jax.jit(allow)(problem.theta, problem.xs, problem.ys, problem.h_0, mask)
    xs_bar = jax.tree.map(lambda bar: None if bar.dtype == jax.dtypes.float0 else bar, xs_bar)
    return value, (theta_bar, xs_bar, h_0_bar)


SHAPES = [(6, ()), (1, (4,)), (5, (2, 3))]
# `full` in every shape; the others in one each, in turn, so that every order meets every shape in some cell.
MATRIX = [
    pytest.param(case, adjoint, *shape, id=f"{case.name}-{name}-{shape}")
    for c, case in enumerate(CELLS)
    for a, (name, adjoint) in enumerate(ADJOINTS.items())
    for shape in (SHAPES if name == "full" else SHAPES[(c + a) % 3 :][:1])
]


@pytest.mark.parametrize(("case", "adjoint", "T", "batch"), MATRIX)
def test_adjoints_give_the_gradient(case, adjoint, T, batch):
    given = problem(case, T=T, batch=batch)
    value, bars = gradient(given, adjoint)
    wanted_value, wanted = oracle(given)
    np.testing.assert_allclose(value, wanted_value, rtol=1e-12)
    if case.name in ("masked", "resettable"):  # a flag can make a leaf's gradient zero in so short a sequence
        for bar, wanted_bar in zip(jax.tree.leaves(bars), jax.tree.leaves(wanted), strict=True):
            np.testing.assert_allclose(bar, wanted_bar, atol=1e-12)
    else:
        assert_close(bars, wanted, 1e-11)


@pytest.mark.parametrize("name", ["masked", "resettable"])
def test_flagged_cells_have_gradients_everywhere_in_a_longer_sequence(name):
    (case,) = (case for case in CELLS if case.name == name)
    given = problem(case, T=9, batch=(3,), seed=1)
    _, bars = gradient(given, jb.adjoints.full())
    assert_close(bars, oracle(given)[1], 1e-11)


@cell_cases
@pytest.mark.parametrize("make", EXACT_ESTIMATORS.values(), ids=EXACT_ESTIMATORS)
def test_estimators_give_the_gradient(case, make):
    given = problem(case, T=7, batch=(3,), seed=2)
    estimator = make(given.model, jb.losses.l2_loss)
    state = estimator.init(given.theta, given.h_0)
    estimate, _ = jax.jit(estimator.update)(given.theta, state, given.xs, given.ys)
    value, (theta_bar, _, h_0_bar) = oracle(given)
    np.testing.assert_allclose(estimate.loss, value, rtol=1e-12)
    assert jax.tree.structure(estimate.grads) == jax.tree.structure(given.theta)
    assert_close(estimate.grads, theta_bar, 1e-11)
    if hasattr(estimate.info, "h_0_bar"):
        assert_close(estimate.info.h_0_bar, h_0_bar, 1e-11)


@pytest.mark.parametrize("make", EXACT_ESTIMATORS.values(), ids=EXACT_ESTIMATORS)
@pytest.mark.parametrize("batch", [(), (2, 3)], ids=str)
def test_estimators_with_any_batch_axes(make, batch):
    (case,) = (case for case in CELLS if case.name == "lstm")
    given = problem(case, T=4, batch=batch, seed=3)
    estimator = make(given.model, jb.losses.l2_loss)
    estimate, _ = estimator.update(given.theta, estimator.init(given.theta, given.h_0), given.xs, given.ys)
    assert_close(estimate.grads, oracle(given)[1][0], 1e-11)


@pytest.mark.parametrize("make", EXACT_ESTIMATORS.values(), ids=EXACT_ESTIMATORS)
@pytest.mark.parametrize("name", ["elman-tanh", "lstm"])
def test_masks_in_estimators(make, name):
    (case,) = (case for case in CELLS if case.name == name)
    given = problem(case, T=6, batch=(3,), seed=4)
    mask = np.array([[1, 1, 0], [0, 1, 1], [1, 0, 1], [1, 0, 0], [0, 0, 1], [0, 0, 1]], bool)
    estimator = make(given.model, jb.losses.l2_loss)
    state = estimator.init(given.theta, given.h_0)
    value, (theta_bar, _, _) = oracle(given, mask)
    # What padding holds must not matter: NaN in every target that doesn't count, and in the inputs after the last.
    ys = jnp.where(mask[..., None], given.ys, jnp.nan)
    matters = np.flip(np.maximum.accumulate(np.flip(mask, 0)), 0)
    xs = jnp.where(matters[..., None], given.xs, jnp.nan)
    estimate, _ = estimator.update(given.theta, state, xs, ys, mask=jnp.asarray(mask))
    np.testing.assert_allclose(estimate.loss, value, rtol=1e-12)
    assert_close(estimate.grads, theta_bar, 1e-11)


@pytest.mark.parametrize("adjoint", ADJOINTS.values(), ids=ADJOINTS)
def test_masks_in_the_objective(adjoint):
    (case,) = (case for case in CELLS if case.name == "gru")
    given = problem(case, T=5, batch=(2,), seed=5)
    mask = np.array([[1, 0], [0, 1], [1, 1], [0, 1], [0, 0]], bool)
    value, bars = gradient(given._replace(ys=jnp.where(mask[..., None], given.ys, jnp.nan)), adjoint, jnp.asarray(mask))
    wanted_value, wanted = oracle(given, mask)
    np.testing.assert_allclose(value, wanted_value, rtol=1e-12)
    assert_close(bars, wanted, 1e-11)
    # NaN after the last step that counts: no number of the gradient changes.
    xs = given.xs.at[4].set(jnp.nan).at[3, 0].set(jnp.nan)
    padded_value, padded = gradient(given._replace(xs=xs), adjoint, jnp.asarray(mask))
    assert padded_value == value
    for bar, padded_bar in zip(jax.tree.leaves(bars), jax.tree.leaves(padded), strict=True):
        np.testing.assert_array_equal(bar, padded_bar)


def test_a_mask_that_counts_nothing_gives_zero():
    given = problem(CELLS[1], T=3)
    nothing = jnp.zeros((3, 2), bool)
    value, bars = gradient(given, jb.adjoints.full(), nothing)
    estimates = [value, bars]
    for make in EXACT_ESTIMATORS.values():
        estimator = make(given.model, jb.losses.l2_loss)
        estimate, _ = estimator.update(given.theta, estimator.init(given.theta), given.xs, given.ys, mask=nothing)
        estimates += [estimate.loss, estimate.grads]
    assert all(np.all(np.asarray(leaf) == 0) for leaf in jax.tree.leaves(estimates))


@pytest.mark.parametrize("make", EXACT_ESTIMATORS.values(), ids=EXACT_ESTIMATORS)
def test_a_mask_changes_no_state_and_no_finite_input(make):
    """f may be singular at zero, and a chunk in which nothing counts moves the state all the same."""

    def step(theta_h, x_t, h_tm1):
        return jnp.tanh(jnp.log(x_t) @ theta_h["A"] + h_tm1 @ theta_h["B"])

    cell = jb.cells.from_step(step, initial_state=lambda theta_h, batch_shape=(): jnp.zeros((*batch_shape, 4)))
    model = jb.rnn(cell, jb.readouts.identity())
    keys = jax.random.split(jax.random.key(0), 4)
    theta = jb.Theta({"A": jax.random.normal(keys[0], (3, 4)), "B": jax.random.normal(keys[1], (4, 4))}, ())
    xs, ys = jax.random.uniform(keys[2], (6, 2, 3)) + 0.1, jax.random.normal(keys[3], (6, 2, 4))
    mask = jnp.zeros((6, 2), bool).at[4].set(True)
    estimator = make(model, jb.losses.l2_loss, reduction="sum")

    def loop(theta):
        h = jnp.zeros((2, 4))
        for t in range(5):
            h = step(theta.h, xs[t], h)
        return 0.5 * jnp.sum((h - ys[4]) ** 2)

    h_0 = jnp.zeros((2, 4))
    estimate, whole = estimator.update(theta, estimator.init(theta, h_0), xs, ys, mask=mask)
    assert_close(estimate.grads, jax.grad(loop)(theta), 1e-11)
    _, state = estimator.update(theta, estimator.init(theta, h_0), xs[:3], ys[:3], mask=mask[:3])
    later, state = estimator.update(theta, state, xs[3:], ys[3:], mask=mask[3:])
    np.testing.assert_allclose(later.loss, loop(theta), rtol=1e-12)
    np.testing.assert_allclose(state.h, whole.h, rtol=1e-12)
    if make is EXACT_ESTIMATORS["rtrl"]:
        assert_close(later.grads, jax.grad(loop)(theta), 1e-11)


@pytest.mark.parametrize("make", EXACT_ESTIMATORS.values(), ids=EXACT_ESTIMATORS)
def test_state_and_input_leaves_that_the_batch_shares(make):
    """A counter in the state and a time step dt [T] in the input have no batch axes."""

    def step(theta_h, inputs, h_tm1):
        drive = inputs["x"] @ theta_h.T + h_tm1["h"] / (1 + h_tm1["t"])
        return {"h": h_tm1["h"] + inputs["dt"] * (jnp.tanh(drive) - h_tm1["h"]), "t": h_tm1["t"] + 1}

    cell = jb.cells.from_step(
        step,
        initial_state=lambda theta_h, batch_shape=(): {"h": jnp.zeros((*batch_shape, 4)), "t": jnp.array(0)},
        output=lambda h_t: h_t["h"],
    )
    keys = jax.random.split(jax.random.key(1), 4)
    theta = jb.Theta(jax.random.normal(keys[0], (4, 3)), ())
    xs = {"x": jax.random.normal(keys[1], (5, 2, 3)), "dt": jax.random.uniform(keys[2], (5,))}
    ys, mask = jax.random.normal(keys[3], (5, 2, 4)), jnp.ones((5, 2), bool).at[3:].set(False)

    def loop(theta):
        h, total = {"h": jnp.zeros((2, 4)), "t": jnp.array(0)}, 0.0
        for t in range(3):
            h = step(theta.h, jax.tree.map(lambda leaf, t=t: leaf[t], xs), h)
            total = total + 0.5 * jnp.sum((h["h"] - ys[t]) ** 2)
        return total / 6

    model = jb.rnn(cell, jb.readouts.identity())
    estimator = make(model, jb.losses.l2_loss)
    state = estimator.init(theta, {"h": jnp.zeros((2, 4)), "t": jnp.array(0)})
    estimate, _ = estimator.update(theta, state, xs, ys, mask=mask)
    assert_close(estimate.grads, jax.grad(loop)(theta), 1e-11)


def test_the_two_paths_are_two_paths():
    """Equal to rounding, yet not to the last bit: the hand-written rule really ran."""
    given = problem(CELLS[5], T=20, batch=(5,), d=7, n=9)
    (_, full), (_, plain) = (gradient(given, ADJOINTS[key]) for key in ("full", "autodiff"))
    assert_close(full, plain, 1e-12)
    assert any(np.any(a != b) for a, b in zip(jax.tree.leaves(full), jax.tree.leaves(plain), strict=True))


@pytest.mark.parametrize("name", ["linear", "elman-tanh", "gru", "lstm", "from_step"])
@pytest.mark.parametrize("make", ONLINE_ESTIMATORS.values(), ids=ONLINE_ESTIMATORS)
@pytest.mark.parametrize("chunk", [1, 3])
def test_online_estimators_add_up_over_chunks(name, make, chunk):
    (case,) = (case for case in CELLS if case.name == name)
    given = problem(case, T=6, batch=(2,), seed=6)
    wanted = oracle(given)[1][0]
    steps = 6 * 2  # F is a mean over these; chunks are summed
    total = _fed_in_chunks(make(given.model, jb.losses.l2_loss, reduction="sum"), given, chunk)
    assert_close(jax.tree.map(lambda leaf: leaf / steps, total), wanted, 1e-11)
    # ... which backpropagation in chunks does not: it forgets what a chunk does to later ones.
    truncated = _fed_in_chunks(jb.estimators.bptt(given.model, jb.losses.l2_loss, reduction="sum"), given, chunk)
    W_h_bar = jax.tree.leaves(truncated.h)[-1] / steps
    assert np.max(np.abs(W_h_bar - jax.tree.leaves(wanted.h)[-1])) > 1e-3 * np.max(np.abs(W_h_bar))


def _fed_in_chunks(estimator, given, chunk):
    state = estimator.init(given.theta, given.h_0)
    total = jax.tree.map(jnp.zeros_like, given.theta)
    for start in range(0, 6, chunk):
        part = slice(start, start + chunk)
        estimate, state = estimator.update(given.theta, state, given.xs[part], given.ys[part])
        total = jax.tree.map(jnp.add, total, estimate.grads)
    return total


@pytest.mark.parametrize("batch", [(), (3,)], ids=str)
def test_closed_forms(batch):
    given = problem(CELLS[0], T=6, batch=batch, seed=7, bias=False)
    value, (theta_bar, _, h_0_bar) = oracle(given)
    for form in (jb.closed_form.double_sum, jb.closed_form.recursion):
        result = form(given.theta, jb.losses.l2_loss, given.xs, given.ys, given.h_0)
        np.testing.assert_allclose(result.loss, value, rtol=1e-12)
        assert_close(result.grads, theta_bar, 1e-11)
        assert_close(result.h_0_bar, h_0_bar, 1e-11)
    hs = jb.closed_form.states(given.theta.h, given.xs, given.h_0)
    np.testing.assert_allclose(hs, jb.unroll(jb.cells.linear(), given.theta.h, given.xs, given.h_0)[1], rtol=1e-12)


def test_closed_forms_start_from_zero_by_default():
    given = problem(CELLS[0], T=4, bias=False)
    started = given._replace(h_0=jnp.zeros_like(given.h_0))
    for form in (jb.closed_form.double_sum, jb.closed_form.recursion):
        assert_close(form(given.theta, jb.losses.l2_loss, given.xs, given.ys).grads, oracle(started)[1][0], 1e-11)


def test_closed_form_with_another_loss():
    given = problem(CELLS[0], T=5, batch=(2,), m=3, bias=False)
    labels = jnp.array([[0, 2], [1, 1], [2, 0], [0, 0], [1, 2]])
    F = jb.objective(given.model, jb.losses.softmax_cross_entropy, adjoint=jb.adjoints.autodiff())
    wanted = jax.grad(F)(given.theta, given.xs, labels, given.h_0)
    for form in (jb.closed_form.double_sum, jb.closed_form.recursion):
        result = form(given.theta, jb.losses.softmax_cross_entropy, given.xs, labels, given.h_0)
        assert_close(result.grads, wanted, 1e-11)


def _learned_step(theta_h, x_t, h_tm1):
    return jnp.tanh(x_t @ theta_h["W_x"].T + h_tm1 @ theta_h["W_h"].T)


def _learned_state(theta_h, batch_shape=()):
    return jnp.broadcast_to(theta_h["h_0"], (*batch_shape, *theta_h["h_0"].shape))


@pytest.mark.parametrize("make", EXACT_ESTIMATORS.values(), ids=EXACT_ESTIMATORS)
def test_an_initial_state_in_the_parameters_is_learned(make):
    cell = jb.cells.from_step(_learned_step, initial_state=_learned_state)
    model = jb.rnn(cell, jb.readouts.identity())
    keys = jax.random.split(jax.random.key(0), 5)
    sizes = {"W_x": (4, 3), "W_h": (4, 4), "h_0": (4,)}
    theta_h = {name: jax.random.normal(key, size) for key, (name, size) in zip(keys, sizes.items(), strict=False)}
    theta = jb.Theta(theta_h, ())
    xs, ys = jax.random.normal(keys[3], (5, 2, 3)), jax.random.normal(keys[4], (5, 2, 4))

    def F(theta_h):
        h, total = jnp.broadcast_to(theta_h["h_0"], (2, 4)), 0.0
        for t in range(5):
            h = jnp.tanh(xs[t] @ theta_h["W_x"].T + h @ theta_h["W_h"].T)
            total = total + 0.5 * jnp.sum((h - ys[t]) ** 2)
        return total / 10

    wanted = jax.grad(F)(theta_h)
    estimator = make(model, jb.losses.l2_loss)
    estimate, _ = estimator.update(theta, estimator.init(theta), xs, ys)
    assert_close(estimate.grads.h, wanted, 1e-11)
    assert_close(jax.grad(jb.objective(model, jb.losses.l2_loss))(theta, xs, ys).h, wanted, 1e-11)


def test_rtrl_memory_does_not_grow_with_T():
    given = problem(CELLS[1], T=8)
    estimator = jb.estimators.rtrl(given.model, jb.losses.l2_loss)
    state = estimator.init(given.theta, given.h_0)

    def temporaries(T):
        xs, ys = (jnp.ones((T, *array.shape[1:])) for array in (given.xs, given.ys))
        compiled = jax.jit(estimator.update).lower(given.theta, state, xs, ys).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    assert temporaries(512) <= 1.01 * temporaries(64) + 64  # scan counters apart


def test_rtrl_is_not_spoilt_by_a_sensitivity_that_explodes_after_the_last_step_that_counts():
    """a_t is beyond float32 by step 90; F reads three steps. By hand: with x = h = 0, ∂h_t/∂b = 1 + 3 + … + 3^(t-1)."""
    model = jb.rnn(jb.cells.elman(), jb.readouts.identity())
    zero = model.init(jax.random.key(0), input_size=1, hidden_size=2, output_size=2, dtype=jnp.float32)
    zero = jax.tree.map(jnp.zeros_like, zero)
    theta = zero._replace(h=zero.h._replace(W_h=3 * jnp.eye(2, dtype=jnp.float32)))
    xs, ys = jnp.zeros((120, 1), jnp.float32), jnp.ones((120, 2), jnp.float32)
    mask = jnp.arange(120) < 3
    estimator = jb.estimators.rtrl(model, jb.losses.l2_loss, reduction="sum")
    estimate, state = estimator.update(theta, estimator.init(theta), xs, ys, mask)
    assert not jnp.all(jnp.isfinite(state.a))
    assert estimate.grads.h.b.tolist() == [-(1.0 + 4.0 + 13.0)] * 2
