"""a_t, b_t, c_t against jax.jacobian of a Python loop and against one another; their products where they are known."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

import jaxbptt as jb
from jaxbptt import jacobians
from tests import cases
from tests.cases import CELLS, assert_close, problem

cell_cases = pytest.mark.parametrize("case", CELLS, ids=cases.name)


def unbatched(case, seed=0, T=4):
    given = problem(case, seed=seed, T=T, batch=(), n=3)
    return given.theta.h, given.xs, given.h_0


def by_jax(case, theta_h, xs, h_0, T):
    """Every dh_t/dθ_h and ∂h_t/∂h_0, by jax.jacobian of a Python loop over `apply`."""
    theta, unravel_theta = ravel_pytree(theta_h)
    h, unravel_h = ravel_pytree(h_0)

    def states(theta, h):
        h_t, out = unravel_h(h), []
        for t in range(T):
            h_t = case.cell.apply(unravel_theta(theta), jax.tree.map(lambda leaf, t=t: leaf[t], xs), h_t)
            out.append(ravel_pytree(h_t)[0])
        return jnp.stack(out)

    return jax.jit(jax.jacobian(states, argnums=(0, 1)))(theta, h)


def jitted(function, case):
    return jax.jit(functools.partial(function, case.cell))


@cell_cases
def test_sensitivities_and_what_they_are_made_of(case):
    """a_1 = b_1 and ∂h_1/∂h_0 = c_1; and products with a vector, which form no matrix."""
    given = unbatched(case)
    wanted, wanted_product = by_jax(case, *given, T=4)
    np.testing.assert_allclose(jitted(jacobians.recursion, case)(*given), wanted, rtol=1e-10, atol=1e-13)
    np.testing.assert_allclose(jitted(jacobians.written_out, case)(*given), wanted, rtol=1e-10, atol=1e-13)
    np.testing.assert_allclose(jitted(jacobians.product, case)(*given), wanted_product, rtol=1e-10, atol=1e-13)
    assert np.max(np.abs(wanted)) > 0.1
    assert_one_step(case, *given, b=wanted, c=wanted_product)
    assert_products_with_a_vector(case, *given, product=wanted_product)


def assert_one_step(case, theta_h, xs, h_0, b, c):
    x_1 = jax.tree.map(lambda leaf: leaf[0], xs)
    np.testing.assert_allclose(jitted(jacobians.immediate, case)(theta_h, x_1, h_0), b[0], rtol=1e-11, atol=1e-14)
    np.testing.assert_allclose(jitted(jacobians.state, case)(theta_h, x_1, h_0), c[0], rtol=1e-11, atol=1e-14)
    bs, cs = jitted(jacobians.along, case)(theta_h, xs, h_0)
    np.testing.assert_allclose(bs[0], b[0], rtol=1e-11, atol=1e-14)
    np.testing.assert_allclose(cs[0], c[0], rtol=1e-11, atol=1e-14)


def assert_products_with_a_vector(case, theta_h, xs, h_0, product):
    v = cases.randomised(h_0, jax.random.key(1), 1.0)
    pushed = jitted(jacobians.jvp, case)(theta_h, xs, h_0, v)
    flat = np.stack([ravel_pytree(jax.tree.map(lambda leaf, t=t: leaf[t], pushed))[0] for t in range(4)])
    np.testing.assert_allclose(flat, product @ ravel_pytree(v)[0], rtol=1e-10, atol=1e-13)

    u = cases.randomised(jax.tree.map(lambda leaf: jnp.zeros((4, *leaf.shape)), h_0), jax.random.key(2), 1.0)
    h_0_bar, deltas = jitted(jacobians.vjp, case)(theta_h, xs, h_0, u)
    us = np.stack([ravel_pytree(jax.tree.map(lambda leaf, t=t: leaf[t], u))[0] for t in range(4)])
    np.testing.assert_allclose(ravel_pytree(h_0_bar)[0], np.einsum("tn,tnk->k", us, product), rtol=1e-10, atol=1e-13)
    last = ravel_pytree(jax.tree.map(lambda leaf: leaf[-1], deltas))[0]
    np.testing.assert_allclose(last, us[-1], rtol=1e-14)  # delta_T = h_bar_T


def test_deltas_are_what_perturbing_a_state_does():
    """delta_t = ∂F/∂h_t along all paths: add ε to h_t in a Python loop and look."""
    (case,) = (case for case in CELLS if case.name == "gru")
    given = problem(case, T=5, batch=(2,))
    h_bars = jax.random.normal(jax.random.key(0), (5, 2, 4))

    def F(bumps):
        h, total = given.h_0, 0.0
        for t in range(5):
            h = case.cell.apply(given.theta.h, given.xs[t], h) + bumps[t]
            total = total + jnp.vdot(h_bars[t], h)
        return total

    wanted = jax.jit(jax.grad(F))(jnp.zeros((5, 2, 4)))
    _, deltas = jacobians.vjp(case.cell, given.theta.h, given.xs, given.h_0, h_bars)
    assert_close(deltas, wanted, 1e-11)


def test_the_order_of_the_products_matters():
    """c_t c_{t-1} … and not the other way round: a transposed order would be far off."""
    (case,) = (case for case in CELLS if case.name == "elman-tanh")
    theta_h, xs, h_0 = unbatched(case)
    _, cs = jacobians.along(case.cell, theta_h, xs, h_0)
    product = jacobians.product(case.cell, theta_h, xs, h_0)
    np.testing.assert_allclose(product[2], cs[2] @ cs[1] @ cs[0], rtol=1e-12)
    assert np.max(np.abs(product[2] - cs[0] @ cs[1] @ cs[2])) > 0.01 * np.max(np.abs(product[2]))


@pytest.mark.parametrize("rho", [0.5, 0.9, 1.0, 1.1, 1.5])
def test_norms_of_orthogonal_products_are_powers(rho):
    """W_h = ρQ gives ‖∂h_t/∂h_k‖ = ρ^(t-k), whatever the inputs."""
    cell = jb.cells.linear(W_h_init=jb.initializers.orthogonal(rho))
    theta_h = cell.init(jax.random.key(0), 2, 16, jnp.float64)
    xs = jax.random.normal(jax.random.key(1), (60, 2))
    h_0 = jnp.ones(16)
    norms = jnp.linalg.norm(jacobians.product(cell, theta_h, xs, h_0), ord=2, axis=(1, 2))
    np.testing.assert_allclose(norms, rho ** np.arange(1, 61), rtol=1e-11)
    v = jax.random.normal(jax.random.key(2), (16,))
    lengths = jnp.linalg.norm(jacobians.jvp(cell, theta_h, xs, h_0, v), axis=1) / jnp.linalg.norm(v)
    np.testing.assert_allclose(lengths, rho ** np.arange(1, 61), rtol=1e-11)


def test_a_non_normal_product_grows_before_it_vanishes():
    cell = jb.cells.linear(W_h_init=jb.initializers.non_normal(0.7, 0.6))
    theta_h = cell.init(jax.random.key(0), 2, 12, jnp.float64)
    products = jacobians.product(cell, theta_h, jnp.zeros((200, 2)), jnp.zeros(12))
    norms = np.linalg.norm(products, ord=2, axis=(1, 2))
    assert np.max(np.abs(np.linalg.eigvals(theta_h.W_h))) < 0.9  # a Jordan block's eigenvalues are ill-conditioned
    assert norms.max() > 3
    assert norms[-1] < 1e-6


def test_under_vmap_and_jit():
    (case,) = (case for case in CELLS if case.name == "lstm")
    given = problem(case, T=3, batch=(2,), n=3)
    along_batch = jax.jit(jax.vmap(lambda xs, h_0: jacobians.recursion(case.cell, given.theta.h, xs, h_0), (1, 0)))
    mapped = along_batch(given.xs, given.h_0)
    one = jacobians.recursion(case.cell, given.theta.h, given.xs[:, 1], jax.tree.map(lambda h: h[1], given.h_0))
    assert_close(mapped[1], one, 1e-12)
