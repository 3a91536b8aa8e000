"""Fixed points where they can be written down."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxbptt as jb
from jaxbptt.diagnostics import fixed_points
from tests.cases import CELLS, problem

ATTRACTOR = 0.9575040240772687  # h = tanh(2h), by hand: iterate h ← tanh(2h)


def test_nine_points_of_two_uncoupled_units():
    """h = tanh(2h) in each of two units: (±a or 0)², of which the four corners are stable, by the slope 2(1 - h²)."""
    theta_h = jb.cells.ElmanParams(W_x=jnp.ones((2, 1)), W_h=2.0 * jnp.eye(2), b=jnp.zeros(2))
    guesses = 1.2 * jax.random.normal(jax.random.key(0), (60, 2))
    found = jax.jit(lambda h_0: fixed_points(jb.cells.elman(), theta_h, jnp.zeros(1), h_0))(guesses)
    assert found.converged.all()
    points = np.asarray(found.h[found.distinct])
    assert len(points) == 9
    wanted = {(a, b) for a in (-1, 0, 1) for b in (-1, 0, 1)}
    assert {tuple(np.rint(point).astype(int)) for point in points} == wanted
    np.testing.assert_allclose(np.abs(points), np.abs(np.rint(points)) * ATTRACTOR, atol=1e-12)
    slopes = -np.sort(-2 * (1 - points**2), axis=1)
    np.testing.assert_allclose(np.real(found.eigenvalues[found.distinct]), slopes, atol=1e-10)
    np.testing.assert_array_equal(found.stable[found.distinct], (np.abs(np.rint(points)) == 1).all(axis=1))
    first = {}
    for row, point in enumerate(np.asarray(found.h)):  # `distinct` is the first row of each point
        first.setdefault(tuple(np.rint(point)), row)
    assert sorted(first.values()) == np.flatnonzero(found.distinct).tolist()


@pytest.mark.parametrize("solver", [None, optax.adam(0.05)])
def test_the_one_point_of_a_linear_map(solver):
    rng = np.random.default_rng(0)
    W_x, W_h, x = rng.normal(size=(4, 2)), rng.normal(size=(4, 4)), rng.normal(size=2)
    theta_h = jb.cells.LinearParams(jnp.asarray(W_x), jnp.asarray(W_h))
    find = jax.jit(lambda h_0: fixed_points(jb.cells.linear(), theta_h, x, h_0, solver=solver))
    found = find(jnp.asarray(rng.normal(size=(5, 4))))
    wanted = np.linalg.solve(np.eye(4) - W_h, W_x @ x)
    np.testing.assert_allclose(found.h, np.broadcast_to(wanted, (5, 4)), rtol=1e-9)
    assert found.distinct.tolist() == [True] + [False] * 4
    mu = np.linalg.eigvals(W_h)
    np.testing.assert_allclose(np.abs(found.eigenvalues[0]), -np.sort(-np.abs(mu)), rtol=1e-10)
    np.testing.assert_allclose(np.sum(found.eigenvalues[0]), np.sum(mu), rtol=1e-9)
    assert not found.stable.any()
    assert np.abs(mu).max() > 1


def test_a_state_that_is_a_tree():
    """What is found stays where it is under the step in NumPy, and a stable point attracts."""
    case = next(case for case in CELLS if case.name == "lstm")
    given = problem(case, T=1, batch=(6,), n=3)
    x = jax.tree.map(lambda leaf: leaf[0, 0], given.xs)
    found = jax.jit(lambda h_0: fixed_points(case.cell, given.theta.h, x, h_0, steps=100))(given.h_0)
    theta_h, x = jax.tree.map(np.asarray, (given.theta.h, x))
    assert found.converged.any()
    for row in np.flatnonzero(found.converged):
        h = jax.tree.map(lambda leaf, row=row: np.asarray(leaf[row]), found.h)
        for before, after in zip(jax.tree.leaves(h), jax.tree.leaves(case.step(theta_h, x, h)), strict=True):
            np.testing.assert_allclose(after, before, atol=1e-9)


def test_what_does_not_converge_is_said_so():
    nowhere = jb.cells.from_step(
        lambda theta_h, x_t, h: h + 1.0, initial_state=lambda theta_h, b=(): jnp.zeros((*b, 2))
    )
    found = jax.jit(lambda h_0: fixed_points(nowhere, (), jnp.zeros(0), h_0, steps=5))(jnp.ones((3, 2)))
    assert not found.converged.any()
    assert not found.distinct.any()
    assert not found.stable.any()
    np.testing.assert_allclose(found.residuals, np.sqrt(2))
    plane = jb.cells.LinearParams(jnp.ones((2, 1)), jnp.eye(2))
    everywhere = jax.jit(lambda h_0: fixed_points(jb.cells.linear(), plane, jnp.zeros(1), h_0, steps=5))(jnp.eye(2))
    assert everywhere.distinct.tolist() == [True, True]  # a plane of them; I - c is singular


def test_float32_and_vmap():
    theta_h = jb.cells.ElmanParams(*(jnp.asarray(leaf, jnp.float32) for leaf in ([[1.0]], [[2.0]], [0.0])))
    guesses = jnp.asarray([[-1.0], [0.01], [0.5]], jnp.float32)

    def one(x):
        return fixed_points(jb.cells.elman(), theta_h, x, guesses, steps=50)

    found = jax.jit(jax.vmap(one))(jnp.asarray([[0.0], [3.0]], jnp.float32))
    assert found.h.dtype == jnp.float32
    assert found.converged.all()
    np.testing.assert_array_equal(np.sum(found.distinct, axis=1), [3, 1])  # a large input leaves one point
