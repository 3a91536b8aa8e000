"""What checkpointed backpropagation keeps of a step, and the schedule that follows from how much may be kept."""

import functools
import math
from typing import NamedTuple

import jax
from jax import lax

from jaxbptt import _axes
from jaxbptt._trees import cotangents
from jaxbptt.adjoints import _errors
from jaxbptt.adjoints.checkpointed import revolve
from jaxbptt.cells._from_split import split_of, take_step


class Terms(NamedTuple):
    """What the schedule is for, all static: the arguments of `revolve.schedule`."""

    T: int
    slots: int
    block: int
    residuals: bool


def row(cell, residuals, theta_h, xs, h_0):
    """The shapes of a row: the state that a step starts from and, if they are kept, the residuals of that step."""
    step = functools.partial(take_step, split_of(cell))
    kept = jax.eval_shape(step, theta_h, _axes.one_step(xs), h_0)[2] if residuals else None
    return jax.eval_shape(lambda h_0: h_0, h_0), kept


def empty(row, number, like):
    """`number` rows, which will hold what varies as `like` does."""
    like = jax.tree.leaves(like)[0]
    return jax.tree.map(lambda leaf: cotangents.zero((number, *leaf.shape), leaf.dtype, like), row)


def at(rows, index):
    """One of them."""
    return jax.tree.map(lambda leaf: lax.dynamic_index_in_dim(leaf, index, keepdims=False), rows)


def several(rows, start, number):
    """`number` of them, from `start` on."""
    return jax.tree.map(lambda leaf: lax.dynamic_slice_in_dim(leaf, start, number), rows)


def put(rows, entries, start):
    """The rows with `entries` written from `start` on."""
    return jax.tree.map(lambda leaf, new: lax.dynamic_update_slice_in_dim(leaf, new, start, 0), rows, entries)


def terms(choice, cell, theta_h, xs, h_0):
    """The `Terms` for these shapes. A row holds residuals where the cell has any."""
    T = _errors.steps_in_numbers(jax.tree.leaves(xs)[0].shape[0])
    shapes = row(cell, choice.residuals == "gates", theta_h, xs, h_0)
    slots = choice.slots or revolve.two_level_slots(T)
    if choice.fraction is not None:
        slots = max(1, math.floor(round(choice.fraction * T, 6)))  # 0.29 · 100 is below 29
    if choice.budget is not None:
        size = sum(_errors.counted_size(leaf.shape) * leaf.dtype.itemsize for leaf in jax.tree.leaves(shapes))
        _errors.enough_memory(choice.budget, size)
        slots = choice.budget // max(size, 1) - 1
    slots, residuals = min(slots, T), bool(jax.tree.leaves(shapes[1]))
    batch = max(1, math.prod(_axes.numbers(_axes.members_shape(cell, theta_h, h_0))))
    block = min(choice.block or revolve.choose_block(T, slots, residuals, batch), T)
    _errors.block_fits(block, slots)
    return Terms(T, slots, block, residuals)
