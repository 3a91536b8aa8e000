"""The sensitivity a_t as a Kronecker product of a vector and a matrix: the influence of KF-RTRL.

h_t = f(W v_t),   v_t = [x_t, h_{t-1}, 1]        b_t = v_t ⊗ D_t,   D_t = ∂h_t/∂(W v_t)
a_t ≈ u_t ⊗ A_t,   s, s' random signs

u_t = s p_1 u_{t-1} + s' p_2 v_t                 p_1 = √(‖c_t A_{t-1}‖ / ‖u_{t-1}‖)
A_t = s c_t A_{t-1}/p_1 + s' D_t/p_2             p_2 = √(‖D_t‖ / ‖v_t‖)
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxbptt._algebra import wide
from jaxbptt._trees import cotangents
from jaxbptt.estimators import _forward
from jaxbptt.types import Array


class Kronecker(NamedTuple):
    """a ≈ u ⊗ A, of each sample: ``u [*batch, samples, d+n+1]`` (d+n without a bias), ``A [*batch, samples, n, n]``.

    >>> Kronecker(u=jnp.ones((4, 1, 9)), A=jnp.ones((4, 1, 5, 5))).A.shape
    (4, 1, 5, 5)
    """

    u: Array
    A: Array


def influence(samples, theta_h):
    """The `Influence` of that many samples."""
    return _forward.Influence(
        init=functools.partial(_init, samples),
        push=functools.partial(_push, samples),
        pull=functools.partial(_pull, theta_h),
        gradient=cotangents.narrow,
        through=_forward.through_the_newest_step,
    )


def _init(samples, theta_h, h_0, start, key):
    """a_0 = 0: these cells start from zeros."""
    n, dtype = h_0.shape[0], wide(h_0.dtype)
    return Kronecker(jnp.zeros((samples, _columns(theta_h)), dtype), jnp.zeros((samples, n, n), dtype))


def _columns(theta_h):
    """How many numbers W has in a row, W_x, W_h and b side by side."""
    return sum(leaf.size for leaf in theta_h) // theta_h.W_h.shape[0]


def _push(samples, cell, theta_h, x_t, h_tm1, h_t, a_tm1, key_t):
    v = _features(cell, theta_h, x_t, h_tm1)
    D = _columnwise(functools.partial(_along_a_row, cell, theta_h, x_t, h_tm1, v), jnp.eye(h_t.size, dtype=h_t.dtype))

    def c_times(h_dot):
        return jax.jvp(functools.partial(cell.apply, theta_h, x_t), (h_tm1,), (h_dot.astype(h_tm1.dtype),))[1]

    old = jax.vmap(functools.partial(_columnwise, c_times))(a_tm1.A).astype(a_tm1.A.dtype)
    signs = jax.random.rademacher(key_t, (2, samples), a_tm1.u.dtype)
    (u, A), (v, D) = _balanced(a_tm1.u, old), _balanced(*(new[None].astype(old.dtype) for new in (v, D)))
    (s_u, s_v), (s_A, s_D) = signs[..., None], signs[..., None, None]
    return Kronecker(s_u * u + s_v * v, s_A * A + s_D * D)


def _features(cell, theta_h, x_t, h_tm1):
    """v_t = [x_t, φ(h_{t-1}), 1], where φ is what the cell shows of a state."""
    x_t = x_t if hasattr(x_t, "shape") else jnp.where(x_t.mask, x_t.x, 0)  # `lengths` make it a `MaskedInput`
    one = jnp.ones(_columns(theta_h) - x_t.size - h_tm1.size, h_tm1.dtype)
    return jnp.concatenate([x_t, cell.output(h_tm1), one])


def _along_a_row(cell, theta_h, x_t, h_tm1, v, row):
    """D_t times `row`: dh_t where W v_t moves by it, as dW = row ⊗ v/‖v‖²."""
    length = jnp.sum(v * v)
    W_dot = jnp.outer(row, v / jnp.where(length == 0, 1, length))  # without features b_t is 0
    return jax.jvp(lambda theta_h: cell.apply(theta_h, x_t, h_tm1), (theta_h,), (_parameters(theta_h, W_dot),))[1]


def _parameters(theta_h, W):
    """θ_h of its matrix ``W [n, d+n+1]``."""
    d, n = theta_h.W_x.shape[1], theta_h.W_h.shape[0]
    parts = [W[:, :d], W[:, d : d + n], *([W[:, -1]] if len(theta_h) > 2 else [])]
    return type(theta_h)(*(part.astype(leaf.dtype) for part, leaf in zip(parts, theta_h, strict=True)))


def _columnwise(function, matrix):
    return jax.vmap(function, in_axes=1, out_axes=1)(matrix)


def _balanced(u, A):
    """The same product from factors of one length; of a product that is zero both are."""
    of_u, of_A = jnp.linalg.norm(u, axis=-1), jnp.linalg.norm(A, axis=(-2, -1))
    nothing = (of_u == 0) | (of_A == 0)
    p = jnp.sqrt(jnp.where(nothing, 1, of_A) / jnp.where(nothing, 1, of_u))
    up, down = (jnp.where(nothing, 0, factor) for factor in (p, 1 / p))
    return up[:, None] * u, down[:, None, None] * A


def _pull(theta_h, a, h_bar):
    """The mean over samples of u ⊗ ∂L/∂h A."""
    # At a step that nothing reads, a may have overflowed: 0 · inf would be NaN.
    h_bar = h_bar[None, :, None].astype(a.A.dtype)
    rows = jnp.sum(jnp.where(h_bar == 0, 0, h_bar * a.A), axis=1)
    W_bar = jnp.where(rows[..., None] == 0, 0, rows[..., None] * a.u[:, None])
    return _parameters(theta_h, jnp.mean(W_bar, axis=0))
