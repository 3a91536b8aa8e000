"""The sensitivity a_t in blocks, as a pattern stores it: the influence of RTRL and of SnAp.

a_t[R, C] = b_t[R, C] + c_t[R, R] a_{t-1}[R, C]          for each block of rows R and columns C
∂F/∂θ_h[C] = Σ_t (∂L_t/∂h_t)[R] a_t[R, C]
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxbptt._algebra import wide
from jaxbptt._trees import vectors
from jaxbptt.estimators._forward import Influence


def influence(pattern, theta_h, *, cut=None):
    """The `Influence` of a pattern. ``cut``: ``(cell, theta_h, h_tm1) -> theta_h`` of which c_t is taken."""
    entered = tuple(_entered(pattern, block) for block in pattern.blocks)
    return Influence(
        init=functools.partial(_init, pattern),
        push=functools.partial(_push, pattern, entered, cut),
        pull=functools.partial(_pull, pattern),
        gradient=functools.partial(_gradient, pattern),
    )


def stored(pattern):
    """The shape of each block of a_t."""
    return tuple((*block.rows.shape, block.cols.shape[1]) for block in pattern.blocks)


def _init(pattern, theta_h, h_0, start, key):
    """a_0 = dh_0/dθ_h. Half precision is carried in float32, as it is summed over time."""
    both, _ = vectors.flatten((theta_h, h_0))
    if start is None:
        return tuple(jnp.zeros(shape, wide(both.dtype)) for shape in stored(pattern))
    theta, theta_of = vectors.flatten(theta_h)
    member = jax.jacrev(lambda theta: vectors.flatten(start(theta_of(theta)))[0])(theta)
    member = jnp.pad(member, ((0, 1), (0, 1))).astype(wide(both.dtype))
    return tuple(member[block.rows[:, :, None], block.cols[:, None, :]] for block in pattern.blocks)


def _push(pattern, entered, cut, cell, theta_h, x_t, h_tm1, h_t, a_tm1, key_t):
    """a_t = b_t + c_t a_{t-1}, block by block."""
    b = _rows(cell, theta_h, x_t, h_tm1, h_t, pattern.b_colours)[0]
    c = _rows(cell, theta_h if cut is None else cut(cell, theta_h, h_tm1), x_t, h_tm1, h_t, pattern.c_colours)[1]
    return tuple(
        _b(pattern, block, enters, b).astype(a.dtype) + _c(pattern, block, c).astype(a.dtype) @ a
        for block, enters, a in zip(pattern.blocks, entered, a_tm1, strict=True)
    )


def _rows(cell, theta_h, x_t, h_tm1, h_t, colours):
    """The rows of b_t and of c_t, those of one colour in one: ``[colours, P]`` and ``[colours, N]``."""

    def row(units):
        theta_bar, _, h_bar_tm1 = cell.vjp(theta_h, x_t, h_tm1, h_t, vectors.gradient(units, h_t))
        return vectors.gradient_vector(theta_bar), vectors.gradient_vector(h_bar_tm1)

    units = colours[:-1] == np.arange(colours.max() + 1)[:, None]
    return jax.vmap(row)(jnp.asarray(units, vectors.flatten(h_t)[0].dtype))


def _entered(pattern, block):
    """Where b_t may be other than zero in a block, ``[G, r, m]``."""
    set_of = lax.optimization_barrier(jnp.asarray(pattern.set_of))  # or the compiler keeps all that is made of it
    return jnp.asarray(pattern.sets.T)[block.rows[:, :, None], set_of[block.cols][:, None, :]]


def _b(pattern, block, enters, b):
    """b_t[R, C] of the rows of one colour each."""
    columns = _taken(b, block.cols)  # [colours, G, m]
    if len(b) == 1:
        return jnp.where(enters, columns[0][:, None], 0)
    return jnp.where(enters, columns[pattern.b_colours[block.rows], np.arange(len(block.rows))[:, None]], 0)


def _taken(b, cols):
    return b[:, None] if np.array_equal(cols[0], np.arange(b.shape[1])) else b[:, np.minimum(cols, b.shape[1] - 1)]


def _c(pattern, block, c):
    """c_t[R, R] of the rows of one colour each."""
    R, S = block.rows[:, :, None], block.rows[:, None, :]
    if len(c) == c.shape[1] and len(block.rows) == 1 and R.size == len(c):
        return c[None]  # all of it
    return jnp.where(pattern.c[R, S], c[pattern.c_colours[R], np.minimum(S, c.shape[1] - 1)], 0)


def _pull(pattern, a_t, h_bar_t):
    """(∂L_t/∂h_t) a_t, block by block."""
    h_bar_t = jnp.append(vectors.gradient_vector(h_bar_t), 0)
    return tuple(_product(h_bar_t[block.rows].astype(a.dtype), a) for block, a in zip(pattern.blocks, a_t, strict=True))


def _product(h_bar, a):
    # At a step that nothing reads, a_t may have overflowed: 0 · inf would be NaN.
    unread = (h_bar == 0)[..., None] & ~jnp.isfinite(a)
    return jnp.einsum("gr,grm->gm", h_bar, jnp.where(unread, jnp.zeros_like(a), a))


def _gradient(pattern, parts, theta_h):
    """The columns in the order of θ_h."""
    theta, _ = vectors.flatten(theta_h)
    total = jnp.zeros(theta.size + 1, wide(theta.dtype))
    for block, part in zip(pattern.blocks, parts, strict=True):
        total = total.at[block.cols.ravel()].set(part.ravel().astype(total.dtype))
    return vectors.gradient(total[:-1], theta_h)
