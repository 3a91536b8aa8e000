"""Which steps are real, and what padding may reach."""

import jax
import jax.numpy as jnp
from jax import lax

from jaxbptt.cells.combinators.masked import MaskedInput, masked


def masked_by_lengths(cell, xs, lengths):
    """The cell and inputs of a recursion whose state stands still beyond `lengths`, and which steps are real."""
    is_real = real(xs, lengths)
    return masked(cell), MaskedInput(xs, is_real), is_real


def real(xs, lengths):
    """Which steps are real, ``[T, *batch]``: t ≤ the length of the sequence."""
    T, lengths = jax.tree.leaves(xs)[0].shape[0], jnp.asarray(lengths)
    if jnp.iinfo(lengths.dtype).bits < 32:  # so few may not hold T
        lengths = lengths.astype(jnp.int32)
    steps = over_batch(jnp.arange(T, dtype=lengths.dtype), lengths.shape)
    return steps < jnp.broadcast_to(lengths, steps.shape)


def over_batch(steps, batch):
    """``[T]`` broadcast to ``[T, *batch]``."""
    return jnp.broadcast_to(steps.reshape(steps.shape + (1,) * len(batch)), (*steps.shape, *batch))


def weights(mask, real):
    """The weight of each step: the mask's at a real step, 0 elsewhere. ``None``: all count alike."""
    if mask is None or real is None:
        return real if mask is None else mask
    return jnp.where(real, mask, jnp.zeros_like(mask))


def in_blocks(run, cell, how, theta_h, xs, h_0):
    """``run(cell, how, theta_h, xs, h_0) -> (h_T, outputs)`` for blocks of ``how.block`` steps that don't divide T.

    Copies of the last step fill the last block. The state stands still at them.
    """
    T = jax.tree.leaves(xs)[0].shape[0]
    rest = -T % how.block
    xs = MaskedInput(jax.tree.map(lambda leaf: _with_copies(leaf, rest), xs), jnp.arange(T + rest, dtype=jnp.int32) < T)
    h_T, outputs = run(masked(cell), how, theta_h, xs, h_0)
    return h_T, jax.tree.map(lambda leaf: leaf[:T], outputs)


def _with_copies(leaf, rest):
    last = lax.stop_gradient(leaf[-1:])
    return jnp.concatenate([leaf, jnp.broadcast_to(last, (rest, *last.shape[1:]))])
