"""The rows of checkpointed backpropagation: what one keeps, and how many there may be."""

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
    """The arguments of `revolve.schedule`, all static."""

    T: int
    slots: int
    block: int
    residuals: bool


def row(cell, residuals, theta_h, xs, h_0):
    """One row, as shapes: the state before a step and, if kept, the residuals of that step."""
    step = functools.partial(take_step, split_of(cell))
    return h_0, jax.eval_shape(step, theta_h, _axes.one_step(xs), h_0)[2] if residuals else None


def empty(row, number, like):
    """`number` empty rows, for values that vary as `like` does."""
    like, (leaves, structure) = jax.tree.leaves(like)[0], jax.tree.flatten(row)
    return structure.unflatten([cotangents.zero((number, *leaf.shape), leaf.dtype, like) for leaf in leaves])


def at(rows, index):
    """One row."""
    return jax.tree.map(functools.partial(lax.dynamic_index_in_dim, index=index, keepdims=False), rows)


def several(rows, start, number):
    """`number` rows, from `start` on."""
    return jax.tree.map(functools.partial(lax.dynamic_slice_in_dim, start_index=start, slice_size=number), rows)


def put(rows, entries, start):
    """The rows with `entries` written from `start` on."""
    return jax.tree.map(functools.partial(lax.dynamic_update_slice_in_dim, start_index=start, axis=0), rows, entries)


def terms(choice, cell, theta_h, xs, h_0):
    """The `Terms` for these shapes. A row holds residuals where the cell has any."""
    T = jax.tree.leaves(xs)[0].shape[0]
    if not isinstance(T, int):
        _errors.steps_in_numbers(T)
    shapes = row(cell, choice.residuals == "gates", theta_h, xs, h_0)
    slots = choice.slots or revolve.two_level_slots(T)
    if choice.fraction is not None:
        slots = max(1, math.floor(round(choice.fraction * T, 6)))  # 0.29 · 100 is below 29
    if choice.budget is not None:
        size = sum(_errors.counted_size(leaf.shape) * leaf.dtype.itemsize for leaf in jax.tree.leaves(shapes))
        _errors.enough_memory(choice.budget, size)
        slots = choice.budget // max(size, 1) - 1
    slots, residuals = min(slots, T), bool(jax.tree.leaves(shapes[1]))
    batch = max(1, math.prod(size for size in _axes.members_shape(cell, theta_h, h_0) if isinstance(size, int)))
    block = min(choice.block or revolve.choose_block(T, slots, residuals, batch), T)
    if block > slots:
        _errors.block_fits(block, slots)
    return Terms(T, slots, block, residuals)
