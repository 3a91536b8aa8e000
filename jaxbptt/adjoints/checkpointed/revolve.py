"""The schedule of checkpointed backpropagation: when to keep a state, when to advance, when to turn back.

Plain Python, run once when the recursion is traced. The schedule's unit is a block of K steps. There are U = ⌈T / K⌉
units. The last is padded where K doesn't divide T. States live in m rows, used as a stack. To reverse u units from a
state in row p, with the rows from p upward free:

 * *leaf*, when u·K ≤ m: run through them once more, keep all their states, and turn back;
 * *split* after y units: advance y units and keep that state in row p + 1. Reverse the u - y units to its right, with
   the m - 1 rows from there. Then reverse the y units to its left, with all m again.

With K = 1 and m = slots + 1, Griewank and Walther solved this problem; the state in hand has the extra row. Let β(m, r)
be the most units reversed with no unit run more than r times. Split at the best place, β(m, r) = β(m, r-1) + β(m-1, r):
Pascal's triangle. The fewest units to run through are

    r·u - Σ_{k<r} β(m, k)      with r = min {r : β(m, r) ≥ u}.

For K = 1 this is their r·T - C(c+r, c+1), as β(c+1, r) = C(c+r, c). For K > 1, and when residuals are kept with the
states, only the edge of the triangle differs. A leaf then holds β(m, 1) = ⌊m / K⌋ units and runs to its end:
β(m, 0) = 0 instead of 1. The formula becomes a lower bound. The same split comes within 2% of the best in the cases
tested.

Source: Griewank and Walther (2000), Algorithm 799: revolve. Gruslys et al. (2016), Memory-efficient backpropagation
through time, find the same optimum by dynamic programming. They count T steps more, each step's own forward.
"""

import functools
import math
from typing import NamedTuple

import numpy as np

from jaxbptt._time.blocks import even

_LARGEST_BLOCK = 32
_BLOCK_SHARE = 3  # a block is at most a third of the slots: reversing it takes memory as well
# In steps of f, measured on a CPU: a block's cost beside its steps, and how much more for a batch of one. The latter is
# the sum Σ b_tᵀ delta_t. It reads and writes each number of ∂F/∂θ_h once a block; a step multiplies it B times.
_BLOCK_OVERHEAD, _SUM_OVERHEAD = 0.1, 60
_PADDED_OVERHEAD = 0.03  # as a share of all steps: with padding, every step asks whether it is real


class Instruction(NamedTuple):
    """Load a state, advance, keep the state reached, turn back.

    Attributes:
        load: the row of the state to start from.
        unit: the unit that starts there.
        advance: how many units to run through.
        dense: 1 to keep every state on the way, from row `load` upward; 0 to keep none.
        store: the row for the state reached, or -1.
        reverse: how many units to turn back over. Their states lie from row `load` upward.
    """

    load: int
    unit: int
    advance: int
    dense: int
    store: int
    reverse: int


class Schedule(NamedTuple):
    """The instructions, as arrays of small integers. The program that runs them does not grow with T.

    Attributes:
        rows: how many states are kept at once, the one in hand included.
        block: K, steps in a unit.
        sweep_rows: ``[U]``, the first row for the K states of a unit in the first sweep. Later units overwrite states
            that are no checkpoint.
        instructions: ``[I, 6]``, each an `Instruction`.
        extra_steps: steps run beyond the T of the first sweep: again, or as padding.
    """

    rows: int
    block: int
    sweep_rows: np.ndarray
    instructions: np.ndarray
    extra_steps: int


def _capacities(rows, units, block, stop_short):
    """β(m, r) for r = 0, 1, … until β(rows, r) ≥ units, each an array over m = 0 … rows."""
    m = np.arange(rows + 1)
    triangle = [(m >= 1).astype(object) * stop_short, (m // block).astype(object)]
    while triangle[-1][rows] < units:
        triangle.append(np.cumsum(triangle[-1]))  # β(m, r) = Σ_{i ≤ m} β(i, r-1)
    return triangle


def _split(triangle, rows, units):
    """How many units to advance before the next checkpoint: as many as r - 1 more runs can reverse to its left."""
    r = next(r for r, beta in enumerate(triangle) if beta[rows] >= units)
    return int(max(1, min(triangle[r - 1][rows], units - triangle[r - 1][rows - 1])))


def _leaf(row, unit, units, filled, stop_short):
    """Keep all states of these units, unless the first sweep did (`filled`), and turn back over them."""
    if filled:
        return Instruction(row, unit, 0, 1, -1, units)
    if stop_short:  # the last state kept is the one reached
        return Instruction(row, unit, units - 1, 1, row + units - 1, units)
    return Instruction(row, unit, units, 1, -1, units)


def _problem(T, slots, block, residuals):
    """Units, steps in a unit, rows, and whether a leaf may stop short of its end."""
    block = even(T, block)
    units = -(-T // block)
    rows = units * block if slots >= T else min(slots + 1, units * block)
    return units, block, rows, block == 1 and not residuals


def _fewest(T, slots, block, residuals):
    """The formula: steps run beyond the T of the first sweep, padding included.

    `schedule` counts the same where K = 1 without residuals. Otherwise this is a lower bound. It needs no schedule.
    """
    units, block, rows, stop_short = _problem(T, slots, block, residuals)
    triangle = _capacities(rows, units, block, stop_short)
    r = next(r for r, beta in enumerate(triangle) if beta[rows] >= units)
    run = r * units - sum(int(beta[rows]) for beta in triangle[:r])
    return (run - units + stop_short) * block + units * block - T


@functools.lru_cache(maxsize=128)
def schedule(T: int, slots: int, block: int, residuals: bool = False) -> Schedule:
    """The schedule for T steps with `slots` checkpoints, in units of `block` steps at most.

    h_0 is the first checkpoint; ``block ≤ min(slots, T)``. With `residuals`, a row also holds those of the step from
    its state. That step must then run as well.

    >>> plan = schedule(1000, 50, block=1)  # 1948 = 999 + 949, and a single forward pass needs 999
    >>> plan.extra_steps, plan.rows
    (949, 51)
    """
    units, block, rows, stop_short = _problem(T, slots, block, residuals)
    triangle = _capacities(rows, units, block, stop_short)
    sweep_rows = np.zeros(units, np.int32)
    instructions = []
    todo = [(0, 0, units, True)]  # row and number of the first unit, how many units, whether they are the last in time
    while todo:
        row, unit, length, last = todo.pop()
        if length * block <= rows - row:
            instructions.append(_leaf(row, unit, length, last, stop_short))
            if last:
                sweep_rows[unit : unit + length] = row + block * np.arange(length)
            continue
        left = _split(triangle, rows - row, length)
        if last:  # the first sweep passes here
            sweep_rows[unit], sweep_rows[unit + 1 : unit + left] = row, row + 1
        else:
            instructions.append(Instruction(row, unit, left, 0, row + 1, 0))
        todo += [(row, unit, left, False), (row + 1, unit + left, length - left, last)]  # the right one first
    program = np.array(instructions, np.int32)
    advanced = int(program[:, Instruction._fields.index("advance")].sum(dtype=np.int64))
    return Schedule(rows, block, sweep_rows, program, (advanced + units) * block - T)


@functools.lru_cache(maxsize=128)
def choose_block(T: int, slots: int, residuals: bool = False, batch: int = 1) -> int:
    """K. Large blocks make few large products, but keep states that the schedule would place better."""
    overhead = _BLOCK_OVERHEAD + _SUM_OVERHEAD / batch

    def cost(block):
        block = even(T, block)
        again = _fewest(T, slots, block, residuals) / T
        return again + overhead / block + _PADDED_OVERHEAD * (T % block > 0)

    return min(range(1, max(1, min(_LARGEST_BLOCK, slots // _BLOCK_SHARE, T)) + 1), key=cost)


def two_level_slots(T: int) -> int:
    """√(2T): nearly the fewest slots with which no step runs more than twice (β(c+1, 2) = C(c+2, 2) ≥ T)."""
    return math.isqrt(2 * T - 1) + 1
