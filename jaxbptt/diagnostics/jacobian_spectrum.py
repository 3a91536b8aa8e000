"""Singular values and eigenvalues of c_t, and of the products c_t … c_1 = ∂h_t/∂h_0, at any horizon."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from jaxbptt import _axes
from jaxbptt.diagnostics import _graded, _members
from jaxbptt.types import Array, Cell, PyTree


class JacobianSpectrum(NamedTuple):
    """Largest first.

    Attributes:
        singular_values: ``[T, *batch, N]``, of each c_t.
        product_log_singular_values: ``[T, *batch, N]``, log σ_i of c_t … c_1; the first is log ‖∂h_t/∂h_0‖₂.
        eigenvalues: ``[T, *batch, N]``, complex, of each c_t; ``None`` when not asked for.
        product_log_eigenvalues: ``[T, *batch, N]``, complex logarithms log μ_i of c_t … c_1. The real part is
            log |μ_i|; ``None`` when not asked for.

    >>> from jaxbptt import cells
    >>> theta_h = cells.LinearParams(W_x=jnp.ones((2, 1)), W_h=0.5 * jnp.eye(2))
    >>> found = jacobian_spectrum(cells.linear(), theta_h, jnp.ones((3, 1)), jnp.zeros(2), eigenvalues=False)
    >>> found.singular_values[-1].round(4).tolist(), found.eigenvalues is None
    ([0.5, 0.5], True)
    """

    singular_values: Array
    product_log_singular_values: Array
    eigenvalues: Array | None
    product_log_eigenvalues: Array | None


def jacobian_spectrum(
    cell: Cell, theta_h: PyTree, xs: PyTree, h_0: PyTree, *, eigenvalues: bool = True, key: Array | None = None
) -> JacobianSpectrum:
    """Spectra of c_t and of c_t … c_1 for t = 1 … T.

    The products are kept as Q·diag(exp d)·U by a QR a step (`jaxbptt.diagnostics._graded`): no horizon over- or
    underflows. Their singular values come from Jacobi rotations. Each is right to its own digits, as far as the c's
    determine it. Eigenvalues below rounding of the largest singular value are not resolved. Time O(T·N³) with a large
    constant, memory O(T·N²): meant for N up to a hundred or so. For more, `power_iteration` and `verdict` form no
    matrix.

    Args:
        cell: f, any.
        theta_h: its parameters.
        xs: ``[T, *batch, d]``.
        h_0: ``[*batch, n]``.
        eigenvalues: whether to compute those too. JAX does so on CPU, and on GPU by way of the host. Elsewhere pass
            False, or compute on ``jax.devices("cpu")``.
        key: of the basis Q_0 that the product starts from; a fixed draw by default.

    Returns:
        A `JacobianSpectrum`. The singular values of c_t are differentiable where they are distinct.

    Raises:
        TypeError, ValueError: as `jaxbptt.unroll` does.

    >>> from jaxbptt import cells
    >>> theta_h = cells.LinearParams(W_x=jnp.ones((2, 1)), W_h=jnp.array([[0.0, -0.5], [2.0, 0.0]]))
    >>> found = jacobian_spectrum(cells.linear(), theta_h, jnp.ones((200, 1)), jnp.zeros(2))
    >>> found.singular_values[0].tolist(), jnp.abs(found.eigenvalues[0]).round(5).tolist()  # ± i: a turn, no growth
    ([2.0, 0.5], [1.0, 1.0])
    >>> bool(jnp.allclose(found.product_log_singular_values[1], 0, atol=1e-5))  # two steps are -I
    True
    """
    h_0, batch, N, dtype = _members.begin(cell, theta_h, xs, h_0)
    Q_0 = _members.directions(key, batch, N, N, dtype)
    identity = jnp.broadcast_to(jnp.eye(N, dtype=dtype), (*batch, N, N))

    def step(carry, x_t):
        h_tm1, product = carry
        push = functools.partial(_members.push, cell, theta_h)
        c_t = _axes.over_members(push, batch, x_t, h_tm1, identity)
        product = _axes.over_members(_graded.multiply, batch, c_t, product)
        return (cell.apply(theta_h, x_t, h_tm1), product), (c_t, product)

    begin = _graded.Graded(Q_0, jnp.zeros((*batch, N), dtype), identity)
    _, (cs, products) = lax.scan(step, (h_0, begin), xs)

    def over_steps(function, tree, *shared):
        return jax.vmap(lambda one: _axes.over_members(function, batch, one, *shared))(tree)

    singular_values = jnp.linalg.svd(cs, compute_uv=False)
    log_singular_values = over_steps(_graded.log_singular_values, products)
    if not eigenvalues:
        return JacobianSpectrum(singular_values, log_singular_values, None, None)
    of_c = jnp.linalg.eigvals(cs)
    of_products = over_steps(_graded.log_eigenvalues, products, Q_0)
    of_c, of_products = _sorted(of_c, jnp.abs(of_c)), _sorted(of_products, jnp.real(of_products))
    return JacobianSpectrum(singular_values, log_singular_values, of_c, of_products)


def _sorted(values, size):
    return jnp.take_along_axis(values, jnp.argsort(-size, axis=-1), axis=-1)
