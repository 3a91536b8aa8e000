"""Weights that are always zero, and units that leak each at their own rate."""

import jax
import jax.numpy as jnp
import numpy as np

import jaxbptt as jb
from tests import cases, oracles
from tests.cases import CELLS, EACH_ADJOINT, assert_close, oracle, problem

(GRU,) = (case for case in CELLS if case.name == "gru")
RNG = np.random.default_rng(5)
MASKS = jb.cells.GRUParams(W_x=RNG.random((18, 3)) < 0.5, W_h=RNG.random((18, 6)) < 0.2, b_x=None, b_h=None)


def kept(theta_h):
    return jax.tree.map(
        lambda mask, leaf: leaf if mask is None else mask * leaf, MASKS, theta_h, is_leaf=lambda mask: mask is None
    )


SPARSE = GRU._replace(cell=jb.cells.sparse(GRU.cell, MASKS), step=lambda theta, x, h: GRU.step(kept(theta), x, h))


def test_a_sparse_cell_is_the_cell_at_the_weights_there_are():
    given = problem(SPARSE, T=4, batch=(2,), n=6)
    value, (wanted, *_) = oracle(given)
    for adjoint in EACH_ADJOINT.values():
        F = jb.objective(given.model, jb.losses.l2_loss, adjoint=adjoint)
        got, bar = jax.jit(jax.value_and_grad(F))(given.theta, given.xs, given.ys, given.h_0)
        np.testing.assert_allclose(got, value, rtol=1e-12)
        assert_close(bar, wanted, 1e-11)
        assert not np.any(np.asarray(bar.h.W_h)[~MASKS.W_h])
    assert jb.check_cell(SPARSE.cell, sizes=((3, 6),), seeds=(0,), batch_shapes=((),))
    drawn = SPARSE.cell.init(jax.random.key(0), 3, 6)
    assert not np.any(np.asarray(drawn.W_x)[~MASKS.W_x])
    assert np.all(np.asarray(drawn.W_h)[MASKS.W_h])


def test_equal_masks_make_one_cell_and_an_absent_weight_is_not_carried():
    again = jax.tree.map(np.copy, MASKS)
    assert jb.cells.sparse(GRU.cell, again) is SPARSE.cell
    given = problem(SPARSE, T=4, batch=(), n=6)
    estimator = jb.estimators.snap(given.model, jb.losses.l2_loss, order=1)
    state = estimator.init(given.theta, given.h_0)
    per_unit = (MASKS.W_x.sum(1) + MASKS.W_h.sum(1)).reshape(3, 6).sum(0) + 6  # and six biases
    assert sum(block.size for block in state.a) == 6 * per_unit.max()


def test_a_leaf_without_a_derivative_stays_as_it_is():
    cell = jb.cells.from_step(lambda theta_h, x_t, h_tm1: theta_h["W"] @ h_tm1 + x_t[theta_h["k"]])
    some = jb.cells.sparse(cell, {"W": np.eye(3, dtype=bool), "k": None})
    theta_h, h_bar_t = {"W": jnp.full((3, 3), 2.0), "k": jnp.array(2)}, jnp.ones(3)
    h_tm1, x_t = jnp.arange(3.0), jnp.arange(4.0)
    theta_bar, _, h_bar_tm1 = some.vjp(theta_h, x_t, h_tm1, some.apply(theta_h, x_t, h_tm1), h_bar_t)
    assert theta_bar["k"] is None
    np.testing.assert_array_equal(theta_bar["W"], np.diag(np.arange(3.0)))
    np.testing.assert_array_equal(h_bar_tm1, [2.0, 2.0, 2.0])


def test_each_unit_may_leak_at_its_own_rate():
    shares = (0.2, 0.5, 0.9, 1.0)
    case = cases.CellCase(
        "leaky", jb.cells.leaky("sigmoid", shares), oracles.leaky_step("sigmoid", shares), oracles.PHI["sigmoid"]
    )
    given = problem(case, T=4, batch=(2,))
    grads = jax.jit(jax.grad(jb.objective(given.model, jb.losses.l2_loss)))(given.theta, given.xs, given.ys, given.h_0)
    assert_close(grads, oracle(given)[1][0], 1e-11)
