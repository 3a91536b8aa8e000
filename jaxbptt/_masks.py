"""Which steps are real, and what padding may reach."""

import jax
import jax.numpy as jnp
from jax import lax

from jaxbptt.cells.combinators.masked import MaskedInput, with_copies


def in_blocks(run, cell, how, theta_h, xs, h_0):
    """``run(cell, how, theta_h, xs, h_0) -> (h_T, outputs)`` of blocks of ``how.block`` steps, no divisor of T."""
    T = jax.tree.leaves(xs)[0].shape[0]
    cell, xs, _, _ = padded(cell, xs, (), -T % how.block)
    h_T, outputs = run(cell, how, theta_h, xs, h_0)
    return h_T, jax.tree.map(lambda leaf: leaf[:T], outputs)


def padded(cell, xs, ys, rest):
    """The recursion with `rest` more steps at which the state stands still, and which steps are real (``None``: all).

    They are copies of the last one: what f has a derivative at, it has one at them.
    """
    if not rest:
        return cell, xs, ys, None
    xs, ys = jax.tree.map(lambda leaf: _with_copies(leaf, rest), (xs, ys))
    steps = jax.tree.leaves(xs)[0].shape[0]
    real = jnp.arange(steps, dtype=jnp.int32) < steps - rest
    return with_copies(cell), MaskedInput(xs, real), ys, real


def _with_copies(leaf, rest):
    last = lax.stop_gradient(leaf[-1:])
    return jnp.concatenate([leaf, jnp.broadcast_to(last, (rest, *last.shape[1:]))])
