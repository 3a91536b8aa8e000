"""What is to be copied keeps its promises. The laws of cells hold of the cell too: it is a case of `tests/cases.py`."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxbptt as jb
from tests.cases import CELLS, assert_close, normal, oracle, problem
from tests.skeletons.cell import sine
from tests.skeletons.estimator import diagonal_rtrl

ELMAN = next(case for case in CELLS if case.name == "elman-tanh")


def diagonal(given):
    """The same network with units that don't read one another."""
    theta_h = given.theta.h._replace(W_h=jnp.diag(normal(jax.random.key(5), (4,))))
    return given._replace(theta=given.theta._replace(h=theta_h))


def test_the_cell_is_a_case():
    """So all laws are held of it, and `check_cell` is asked."""
    (case,) = (case for case in CELLS if case.name == "skeleton")
    assert case.cell is sine()


@pytest.mark.parametrize("batch", [(), (2, 3)], ids=str)
def test_the_estimator_is_exact_where_the_recurrence_is_diagonal(batch):
    given = problem(ELMAN, T=5, batch=batch, seed=3)
    estimator = diagonal_rtrl(given.model, jb.losses.l2_loss)
    for problem_of, is_exact in ((diagonal(given), True), (given, False)):
        state = estimator.init(problem_of.theta, problem_of.h_0)
        estimate, _ = jax.jit(estimator.update)(problem_of.theta, state, problem_of.xs, problem_of.ys)
        value, (theta_bar, _, _) = oracle(problem_of)
        np.testing.assert_allclose(estimate.loss, value, rtol=1e-12)
        assert_close(estimate.grads.o, theta_bar.o, 1e-11)
        assert np.allclose(estimate.grads.h.W_h, theta_bar.h.W_h, rtol=1e-9) == is_exact


def test_the_estimator_looks_at_nothing_that_does_not_count():
    """A mask, lengths, a key: NaN in the targets that don't count, and in what is padding."""
    given = diagonal(problem(ELMAN, T=5, batch=(2,), seed=3))
    estimator = diagonal_rtrl(given.model, jb.losses.l2_loss)
    state = estimator.init(given.theta, given.h_0, key=jax.random.key(0))
    update = jax.jit(estimator.update)
    mask = np.array([[1, 1], [0, 1], [1, 0], [1, 0], [0, 0]], bool)
    ys = jnp.where(mask[..., None], given.ys, jnp.nan)
    estimate, _ = update(given.theta, state, given.xs, ys, mask=jnp.asarray(mask), key=jax.random.key(1))
    assert_close(estimate.grads, oracle(given, mask)[1][0], 1e-11)
    xs, ys = (leaf.at[2:, 1].set(jnp.nan) for leaf in (given.xs, given.ys))
    estimate, after = update(given.theta, state, xs, ys, lengths=jnp.array([5, 2]))
    assert_close(estimate.grads, oracle(given, np.arange(5)[:, None] < np.array([[5, 2]]))[1][0], 1e-11)
    assert np.all(np.isfinite(after.h))


def test_the_estimator_in_a_stream_adds_up_to_the_whole():
    given = diagonal(problem(ELMAN, T=6, batch=(2,), seed=3))
    estimator = diagonal_rtrl(given.model, jb.losses.l2_loss, reduction="sum")
    update = jax.jit(estimator.update)
    state, total = estimator.init(given.theta, given.h_0), jax.tree.map(jnp.zeros_like, given.theta)
    for t in range(0, 6, 2):
        estimate, state = update(given.theta, state, given.xs[t : t + 2], given.ys[t : t + 2])
        total = jax.tree.map(jnp.add, total, estimate.grads)
    assert_close(total, jax.tree.map(lambda bar: 12 * bar, oracle(given)[1][0]), 1e-11)
    np.testing.assert_allclose(estimate.info.a_norm, np.linalg.norm(state.a), rtol=1e-12)


def test_the_estimator_learns_the_start():
    given = diagonal(problem(ELMAN, T=5, batch=(2,), seed=3))
    model = jb.rnn(jb.cells.learned_start(ELMAN.cell), given.model.readout)
    theta = given.theta._replace(h=jb.cells.LearnedStart(given.theta.h, jnp.full(4, 0.5)))
    estimator, F = diagonal_rtrl(model, jb.losses.l2_loss), jb.objective(model, jb.losses.l2_loss)
    estimate, _ = jax.jit(estimator.update)(theta, estimator.init(theta), given.xs, given.ys)
    assert_close(estimate.grads, jax.jit(jax.grad(F))(theta, given.xs, given.ys), 1e-11)
