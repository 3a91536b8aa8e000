"""A schedule as two loops read it: steps and rows instead of units, and an array for each number.

What is computed here, once and in NumPy, no loop need compute and no compiler look at. All arrays of one length are
read by the same small piece of program, whatever they mean; one table of them would be a piece for each column.
"""

from typing import Any, NamedTuple

import numpy as np

from jaxbptt.adjoints._blocks import starts


class SweepTable(NamedTuple):
    """The first sweep, unit by unit.

    Attributes:
        start: the step it begins with.
        row: from here on it is kept.
        handed: the unit later in time begins after so many of its steps: K, or fewer where that one overlaps it.
    """

    start: Any
    row: Any
    handed: Any


class BackTable(NamedTuple):
    """The way back: the fields of `_revolve.Instruction` in steps and rows, instruction by instruction.

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


def sweep_table(plan):
    """`SweepTable` of a `_revolve.Schedule`, ``[U]`` each."""
    begins, T = _starts(plan)
    return _int32(SweepTable(begins, plan.sweep_rows, np.diff(begins, append=T)))


def back_table(plan):
    """`BackTable` of a `_revolve.Schedule`, ``[I]`` each."""
    K = plan.block
    load, unit, advance, dense, store, reverse = plan.instructions.T
    last = np.maximum(reverse - 1, 0)
    return _int32(
        BackTable(
            load=load,
            start=K * unit,  # the unit that shares steps is the last in time: kept by the sweep, never run again
            row=np.where(dense, load, load + 1),  # not dense: overwritten
            stride=np.where(dense, K, 0),
            advance=advance,
            stores=store >= 0,
            store=np.maximum(store, 0),
            last_start=_starts(plan)[0][unit + last],
            last_row=load + K * last,
            reverse=reverse,
        )
    )


def _starts(plan):
    """Of all units, and T, where the last one ends."""
    units = len(plan.sweep_rows)
    T = units * plan.block - plan.overlap
    return starts(T, units, plan.block), T


def _int32(columns):
    return type(columns)(*(np.asarray(column, np.int32) for column in columns))
