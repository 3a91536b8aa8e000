"""A schedule as two loops read it: rows instead of units, and an array for each number.

It is computed once, in NumPy: neither a loop nor the compiler need do it. Arrays of one length are all read by the same
small piece of program. In one table, each column would need a piece of its own.
"""

from typing import Any, NamedTuple

import numpy as np


class BackTable(NamedTuple):
    """The way back: `revolve.Instruction` in rows, one array for each field.

    Attributes:
        load: the row of the state to start from.
        unit: the unit that starts there.
        row: the first row for the states run through.
        stride: how many rows further for each unit.
        advance: how many units to run through.
        stores: 1 to keep the state reached.
        store: the row for it.
        last_unit: the last unit to turn back over.
        last_row: its row.
        reverse: how many units to turn back over.
    """

    load: Any
    unit: Any
    row: Any
    stride: Any
    advance: Any
    stores: Any
    store: Any
    last_unit: Any
    last_row: Any
    reverse: Any


def back_table(plan):
    """`BackTable` of a `revolve.Schedule`, ``[I]`` each."""
    load, unit, advance, dense, store, reverse = plan.instructions.T
    last = np.maximum(reverse - 1, 0)
    columns = BackTable(
        load=load, unit=unit, row=np.where(dense, load, load + 1),  # not dense: overwritten
        stride=np.where(dense, plan.block, 0), advance=advance, stores=store >= 0, store=np.maximum(store, 0),
        last_unit=unit + last, last_row=load + plan.block * last, reverse=reverse,
    )  # fmt: skip
    return BackTable(*(np.asarray(column, np.int32) for column in columns))
