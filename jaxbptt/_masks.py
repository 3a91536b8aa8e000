"""Which steps are real, and what padding may reach."""

import jax
import jax.numpy as jnp
from jax import lax

from jaxbptt.cells.combinators.masked import MaskedInput, masked


def standing_still(cell, xs, lengths):
    """The recursion whose state stands still where a sequence is over, and which steps are real."""
    is_real = real(xs, lengths)
    return masked(cell), MaskedInput(xs, is_real), is_real


def real(xs, lengths):
    """Which steps are, ``[T, *batch]``: t ≤ the length of the sequence."""
    T, lengths = jax.tree.leaves(xs)[0].shape[0], jnp.asarray(lengths)
    if jnp.iinfo(lengths.dtype).bits < 32:  # T need not be a number of so few
        lengths = lengths.astype(jnp.int32)
    steps = of_members(jnp.arange(T, dtype=lengths.dtype), lengths.shape)
    return steps < jnp.broadcast_to(lengths, steps.shape)


def of_members(steps, batch):
    """``[T]`` as ``[T, *batch]``."""
    return jnp.broadcast_to(steps.reshape(steps.shape + (1,) * len(batch)), (*steps.shape, *batch))


def weights(mask, real):
    """What each step counts: what the mask says of a real one, and nothing elsewhere. ``None``: all, alike."""
    if mask is None or real is None:
        return real if mask is None else mask
    return jnp.where(real, mask, jnp.zeros_like(mask))


def in_blocks(run, cell, how, theta_h, xs, h_0):
    """``run(cell, how, theta_h, xs, h_0) -> (h_T, outputs)`` of blocks of ``how.block`` steps, no divisor of T.

    Copies of the last step follow it, at which the state stands still.
    """
    T = jax.tree.leaves(xs)[0].shape[0]
    rest = -T % how.block
    xs = MaskedInput(jax.tree.map(lambda leaf: _with_copies(leaf, rest), xs), jnp.arange(T + rest, dtype=jnp.int32) < T)
    h_T, outputs = run(masked(cell), how, theta_h, xs, h_0)
    return h_T, jax.tree.map(lambda leaf: leaf[:T], outputs)


def _with_copies(leaf, rest):
    last = lax.stop_gradient(leaf[-1:])
    return jnp.concatenate([leaf, jnp.broadcast_to(last, (rest, *last.shape[1:]))])
