"""The closed forms of the linear network give the gradient that NumPy and the complex step give."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxbptt as jb
from tests.cases import CELLS, assert_close, oracle, problem


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
