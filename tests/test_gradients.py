"""Every order of evaluation gives the gradient that NumPy and the complex step give."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxbptt as jb
from tests.cases import ADJOINTS, CELLS, EACH_ADJOINT, EXACT_ESTIMATORS, assert_close, oracle, problem


def gradient(problem, adjoint, mask=None):
    """F and ∂F/∂(θ, xs, h_0) by `adjoint`; flags in xs get None."""
    F = jb.objective(problem.model, jb.losses.l2_loss, adjoint=adjoint)
    allow = jax.value_and_grad(F, argnums=(0, 1, 3), allow_int=True)
    value, (theta_bar, xs_bar, h_0_bar) = jax.jit(allow)(problem.theta, problem.xs, problem.ys, problem.h_0, mask=mask)
    xs_bar = jax.tree.map(lambda bar: None if bar.dtype == jax.dtypes.float0 else bar, xs_bar)
    return value, (theta_bar, xs_bar, h_0_bar)


SHAPES = [(6, ()), (1, (4,)), (5, (2, 3))]


def kind(name):
    return name.split("-")[0]


# Every cell by every kind of adjoint; of one with options it meets every other one, and shapes come in turn.
MATRIX = [
    pytest.param(case, adjoint, *SHAPES[(c // 2 + a) % 3], id=f"{case.name}-{name}")
    for c, case in enumerate(CELLS)
    for a, (name, adjoint) in enumerate(ADJOINTS.items())
    if (c + a) % 2 == 0 or [*map(kind, ADJOINTS)].count(kind(name)) == 1
]


@pytest.mark.parametrize(("case", "adjoint", "T", "batch"), MATRIX)
def test_adjoints_give_the_gradient(case, adjoint, T, batch):
    given = problem(case, T=T, batch=batch)
    value, bars = gradient(given, adjoint)
    wanted_value, wanted = oracle(given)
    np.testing.assert_allclose(value, wanted_value, rtol=1e-12)
    if case.inputs:  # a flag can make a leaf's gradient zero in so short a sequence
        for bar, wanted_bar in zip(jax.tree.leaves(bars), jax.tree.leaves(wanted), strict=True):
            np.testing.assert_allclose(bar, wanted_bar, atol=1e-12)
    else:
        assert_close(bars, wanted, 1e-11)


@pytest.mark.parametrize("name", ["masked", "resettable", "learned_start"])
def test_flagged_cells_have_gradients_everywhere_in_a_longer_sequence(name):
    (case,) = (case for case in CELLS if case.name == name)
    given = problem(case, T=9, batch=(3,), seed=1)
    _, bars = gradient(given, jb.adjoints.full())
    assert_close(bars, oracle(given)[1], 1e-11)


@pytest.mark.parametrize("adjoint", EACH_ADJOINT.values(), ids=EACH_ADJOINT)
def test_masks_in_the_objective(adjoint):
    (case,) = (case for case in CELLS if case.name == "gru")
    given = problem(case, T=5, batch=(2,), seed=5)
    mask = np.array([[1, 0], [0, 1], [1, 1], [0, 1], [0, 0]], bool)
    value, bars = gradient(given._replace(ys=jnp.where(mask[..., None], given.ys, jnp.nan)), adjoint, jnp.asarray(mask))
    wanted_value, wanted = oracle(given, mask)
    np.testing.assert_allclose(value, wanted_value, rtol=1e-12)
    assert_close(bars, wanted, 1e-11)


@pytest.mark.parametrize("adjoint", EACH_ADJOINT.values(), ids=EACH_ADJOINT)
def test_nan_in_a_real_step_shows_whether_it_counts_or_not(adjoint):
    """In the second member; the loss of the first member alone has no NaN, nor have its inputs a gradient that is."""
    (case,) = (case for case in CELLS if case.name == "gru")
    given = problem(case, T=5, batch=(2,), seed=5)
    mask = jnp.arange(5)[:, None] < jnp.array([[5, 3]])
    value, (theta_bar, xs_bar, _) = gradient(given._replace(xs=given.xs.at[3, 1].set(jnp.nan)), adjoint, mask)
    assert np.isnan(value) or any(np.any(np.isnan(leaf)) for leaf in jax.tree.leaves(theta_bar))
    assert np.all(np.isfinite(xs_bar[:, 0]))


@pytest.mark.parametrize("adjoint", EACH_ADJOINT.values(), ids=EACH_ADJOINT)
def test_a_product_that_overflows_where_nothing_is_read(adjoint):
    """h_t = W h_{t-1}, two steps count of 200, from h_0 = 0: ∂F/∂h_0 = -(W1 + W²1)ᵀ / 2. W^198 is beyond float32."""
    model = jb.rnn(jb.cells.linear(), jb.readouts.identity())
    W_h = jnp.asarray([[4.0, -3.0], [1.0, 4.0]], jnp.float32)  # turns: inf - inf is NaN as well
    theta = jb.Theta(jb.cells.LinearParams(jnp.ones((2, 1), jnp.float32), W_h), ())
    xs, ys, mask = jnp.zeros((200, 1), jnp.float32), jnp.ones((200, 2), jnp.float32), jnp.arange(200) < 2
    gradient = jax.grad(jb.objective(model, jb.losses.l2_loss, adjoint=adjoint), (0, 1, 3))
    theta_bar, xs_bar, h_0_bar = jax.jit(gradient)(theta, xs, ys, jnp.zeros(2, jnp.float32), mask=mask)
    W, one = np.asarray(W_h), np.ones(2, np.float32)
    np.testing.assert_array_equal(h_0_bar, -(W.T @ one + W.T @ W.T @ one) / 2)
    np.testing.assert_array_equal(xs_bar[:2, 0], [-(one @ one + one @ W @ one) / 2, -one @ one / 2])
    assert not np.any(xs_bar[2:])
    assert not np.any(theta_bar.h.W_h)


def test_a_mask_that_counts_nothing_gives_zero():
    given = problem(CELLS[1], T=3)
    nothing = jnp.zeros((3, 2), bool)
    value, bars = gradient(given, jb.adjoints.full(), nothing)
    estimates = [value, bars]
    for make in EXACT_ESTIMATORS.values():
        estimator = make(given.model, jb.losses.l2_loss)
        state, update = estimator.init(given.theta), jax.jit(estimator.update)
        estimate, _ = update(given.theta, state, given.xs, given.ys, mask=nothing)
        estimates += [estimate.loss, estimate.grads]
    assert all(np.all(np.asarray(leaf) == 0) for leaf in jax.tree.leaves(estimates))


def test_the_two_paths_are_two_paths():
    """Equal to rounding, yet not to the last bit: the hand-written rule really ran."""
    given = problem(CELLS[5], T=20, batch=(5,), d=7, n=9)
    (_, full), (_, plain) = (gradient(given, ADJOINTS[key]) for key in ("full", "autodiff"))
    assert_close(full, plain, 1e-12)
    assert any(np.any(a != b) for a, b in zip(jax.tree.leaves(full), jax.tree.leaves(plain), strict=True))
