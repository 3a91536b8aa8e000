"""What checkpointed backpropagation keeps of a step, and the schedule that follows from how much may be kept."""

import math
from typing import NamedTuple

import jax

from jaxbptt import _axes, _varying
from jaxbptt.adjoints import _errors, _gates, _revolve
from jaxbptt.cells._from_split import split_of, without_time_axis


class Terms(NamedTuple):
    """What the schedule is for, all static: the arguments of `_revolve.schedule`."""

    T: int
    slots: int
    block: int
    gates: bool


def row(cell, gates, theta_h, xs, h_0):
    """The shapes of a row: the state that a step starts from and, if they are kept, the gates of that step."""
    split = split_of(cell)

    def one_step(theta_h, xs, h_0):
        _, gates_1 = split.step(theta_h, without_time_axis(split.project(theta_h, xs)), h_0)
        return h_0, gates_1 if gates else None

    return jax.eval_shape(one_step, theta_h, _gates.one_step(xs), h_0)


def empty(rows, number, like):
    """`number` rows, which will hold what varies as `like` does."""
    return jax.tree.map(lambda leaf: _varying.zeros((number, *leaf.shape), leaf.dtype, like), rows)


def terms(choice, cell, theta_h, xs, h_0):
    """The `Terms` for these shapes. A row holds gates unless all of them are there anyway."""
    T = _errors.steps_in_numbers(jax.tree.leaves(xs)[0].shape[0])
    gates = choice.residuals == "gates" and _gates.layout(split_of(cell), theta_h, xs, h_0).computes
    slots = choice.slots or _revolve.two_level_slots(T)
    if choice.fraction is not None:
        slots = max(1, math.floor(round(choice.fraction * T, 6)))  # 0.29 · 100 is below 29
    if choice.budget is not None:
        leaves = jax.tree.leaves(row(cell, gates, theta_h, xs, h_0))
        size = sum(_errors.counted_size(leaf.shape) * leaf.dtype.itemsize for leaf in leaves)
        _errors.enough_memory(choice.budget, size)
        slots = choice.budget // max(size, 1) - 1
    slots = min(slots, T)
    batch = max(1, math.prod(_axes.numbers(_axes.members_shape(cell, theta_h, h_0))))
    block = _revolve.choose_block(T, slots, gates, batch) if choice.block is None else min(choice.block, T)
    _errors.block_fits(block, slots)
    return Terms(T, slots, block, gates)
