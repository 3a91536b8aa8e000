"""What checkpointed backpropagation keeps of a step, and the schedule that follows from how much may be kept."""

import math

import jax
import jax.numpy as jnp
import numpy as np

from jaxbptt import _batch, _validate
from jaxbptt.adjoints import _gates, _revolve
from jaxbptt.cells._from_split import split_of, without_time_axis


def keeps_gates(choice, split, theta_h, xs, h_0):
    """Whether a row holds gates: not where all of them are there anyway."""
    return choice.residuals == "gates" and None in _gates.places(split, theta_h, xs, h_0)


def row(choice, cell, theta_h, xs, h_0):
    """The shapes of a row: the state that a step starts from and, if they are kept, the gates of that step."""
    split = split_of(cell)
    kept = keeps_gates(choice, split, theta_h, xs, h_0)

    def one_step(theta_h, xs, h_0):
        _, gates_1 = split.step(theta_h, without_time_axis(split.project(theta_h, xs)), h_0)
        return h_0, gates_1 if kept else None

    first = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((1, *leaf.shape[1:]), leaf.dtype), xs)
    return jax.eval_shape(one_step, theta_h, first, h_0)


def empty(rows, number):
    """`number` rows."""
    return jax.tree.map(lambda leaf: jnp.zeros((number, *leaf.shape), leaf.dtype), rows)


def schedule(choice, cell, theta_h, xs, h_0):
    """The `_revolve.Schedule` for these shapes."""
    T = jax.tree.leaves(xs)[0].shape[0]
    one_row = jax.tree.leaves(row(choice, cell, theta_h, xs, h_0))
    gates = len(one_row) > len(jax.tree.leaves(h_0))
    slots = choice.slots or _revolve.two_level_slots(T)
    if choice.fraction is not None:
        slots = max(1, int(choice.fraction * T))
    if choice.budget is not None:
        size = sum(int(np.prod(leaf.shape)) * leaf.dtype.itemsize for leaf in one_row)
        _validate.enough_memory(choice.budget, size)
        slots = choice.budget // max(size, 1) - 1
    slots = min(slots, T)
    batch = max(1, math.prod(_batch.members_shape(cell, theta_h, h_0)))
    block = _revolve.choose_block(T, slots, gates, batch) if choice.block is None else min(choice.block, T)
    _validate.block_fits(block, slots)
    return _revolve.schedule(T, slots, block, gates)
