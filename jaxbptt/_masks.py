"""Which steps are real, and what padding may reach."""

import jax
import jax.numpy as jnp
from jax import lax

from jaxbptt.cells.combinators.masked import MaskedInput, masked, of_copies, standing


def standing_still(cell, xs, lengths):
    """The recursion whose state stands still where a sequence is over, and which steps are real."""
    is_real = real(xs, lengths)
    return masked(cell), MaskedInput(xs, is_real), is_real


def real(xs, lengths):
    """Which steps are, ``[T, *batch]``: t ≤ the length of the sequence."""
    T = jax.tree.leaves(xs)[0].shape[0]
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
    """``run(cell, how, theta_h, xs, h_0) -> (h_T, outputs)`` of blocks of ``how.block`` steps, no divisor of T."""
    T = jax.tree.leaves(xs)[0].shape[0]
    cell, xs, _, _ = padded(cell, xs, (), -T % how.block)
    h_T, outputs = run(cell, how, theta_h, xs, h_0)
    return h_T, jax.tree.map(lambda leaf: leaf[:T], outputs)


def padded(cell, xs, ys, rest):
    """The recursion with `rest` more steps at which the state stands still, and which steps are real.

    They are copies of the last one: what f has a derivative at, it has one at them.
    """
    xs, ys = jax.tree.map(lambda leaf: _with_copies(leaf, rest), (xs, ys))
    steps = jax.tree.leaves(xs)[0].shape[0]
    real = jnp.arange(steps, dtype=jnp.int32) < steps - rest
    return standing(cell, of_copies), MaskedInput(xs, real), ys, real


def _with_copies(leaf, rest):
    last = lax.stop_gradient(leaf[-1:])
    return jnp.concatenate([leaf, jnp.broadcast_to(last, (rest, *last.shape[1:]))])
