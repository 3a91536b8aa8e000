"""A schedule as two loops read it: steps and rows instead of units, and an array for each number.

What is computed here, once and in NumPy, no loop need compute and no compiler look at. All arrays of one length are
read by the same small piece of program, whatever they mean; one table of them would be a piece for each column.
"""

from typing import Any, NamedTuple

import numpy as np


class Sweep(NamedTuple):
    """The first sweep, unit by unit.

    Attributes:
        start: the step it begins with.
        row: from here on it is kept.
        handed: the next unit begins after so many of its steps: K, or fewer where that one overlaps it.
    """

    start: Any
    row: Any
    handed: Any


class Instructions(NamedTuple):
    """The way back: `_revolve.Instruction` by `_revolve.Instruction`.

    Attributes:
        load: the row of the state to start from.
        start: the step that starts there.
        row: what is run through is kept from here on,
        stride: and so many rows further for each unit.
        advance: how many units to run through.
        stores: 1 to keep the state reached.
        store: the row for it.
        last_start: the first step of the last unit to turn back over,
        last_row: and its row.
        reverse: how many units to turn back over.
    """

    load: Any
    start: Any
    row: Any
    stride: Any
    advance: Any
    stores: Any
    store: Any
    last_start: Any
    last_row: Any
    reverse: Any


def sweep(plan):
    """`Sweep` of a `_revolve.Schedule`, ``[U]`` each."""
    starts = _starts(plan)
    return _int32(Sweep(starts, plan.sweep_rows, np.diff(starts, append=starts[-1] + plan.block)))


def instructions(plan):
    """`Instructions` of a `_revolve.Schedule`, ``[I]`` each."""
    K = plan.block
    load, unit, advance, dense, store, reverse = plan.instructions.T
    last = reverse - 1
    return _int32(
        Instructions(
            load=load,
            start=K * unit,  # the unit that shares steps is the last in time, and nothing runs through it again
            row=np.where(dense, load, load + 1),  # not dense: overwritten
            stride=np.where(dense, K, 0),
            advance=advance,
            stores=store >= 0,
            store=np.maximum(store, 0),
            last_start=_starts(plan)[unit + last],
            last_row=load + K * last,
            reverse=reverse,
        )
    )


def _starts(plan):
    starts = plan.block * np.arange(len(plan.sweep_rows))
    starts[-1] -= plan.overlap
    return starts


def _int32(columns):
    return type(columns)(*(np.asarray(column, np.int32) for column in columns))
