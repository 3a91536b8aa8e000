"""Gradient flossing: Lyapunov exponents driven to a target, so that long products of c's neither vanish nor explode."""

import jax.numpy as jnp

from jaxbptt._errors import arguments
from jaxbptt.diagnostics.lyapunov_spectrum import lyapunov_spectrum
from jaxbptt.types import Array, Cell, PyTree


def flossing(
    cell: Cell,
    theta_h: PyTree,
    xs: PyTree,
    h_0: PyTree,
    *,
    k: int,
    target: float = 0.0,
    transient: int = 0,
    every: int = 1,
    key: Array | None = None,
) -> Array:
    """``1/k Σ_{i≤k} (λ_i - target)²``, averaged over the sequences of the batch: a regulariser of θ_h.

    With the k largest exponents at 0, a k-dimensional subspace carries gradients over any horizon. Differentiate it
    with ``jax.grad``, before training or beside F: the gradient goes through every QR and along the trajectory. Exact,
    O(T·(k·(cost of f) + N·k²)) and the memory of T states and factors; costs more than F does, so it is used on a few
    steps only.

    Args:
        cell: f, any whose c_t are not singular.
        theta_h: its parameters.
        xs: ``[T, *batch, d]``.
        h_0: ``[*batch, n]``.
        k: how many exponents.
        target: what they should be; 0 keeps the length of a gradient.
        transient: steps at the beginning that don't count.
        every: steps from one QR to the next; must divide T and `transient`.
        key: of the first directions; a fixed draw by default.

    Returns:
        A scalar.

    Raises:
        TypeError, ValueError: as `jaxbptt.diagnostics.lyapunov_spectrum` does, and for a target that is no number.

    Source: Engelken (2023), Gradient flossing: improving gradient descent through dynamic control of Jacobians.

    >>> import jax
    >>> from jaxbptt import cells
    >>> theta_h = cells.LinearParams(W_x=jnp.ones((2, 1)), W_h=0.5 * jnp.eye(2))
    >>> floss = lambda theta_h: flossing(cells.linear(), theta_h, jnp.ones((9, 1)), jnp.zeros(2), k=2)
    >>> round(float(floss(theta_h)), 4)  # log(0.5)²
    0.4805
    >>> step = jax.grad(floss)(theta_h).W_h
    >>> bool(step[0, 0] < 0)  # against the gradient: W_h grows
    True
    """
    if not hasattr(target, "dtype"):  # an array, which `jax.jit` may have made of a number
        arguments.numbers(target=target)
    found = lyapunov_spectrum(cell, theta_h, xs, h_0, k=k, transient=transient, every=every, key=key)
    return jnp.mean(jnp.square(found.per_sequence - target))
