"""Time and temporaries of `adjoints.checkpointed` against its slots, beside the formula.

A gradient that keeps everything runs T steps forward and T backward; with a step backward taken for two forward, the
time beside it should be (steps / T + 2) / 3, and the states kept c / T of it. F reads h_T alone.
"""

import functools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

import jaxbptt as jb
from experiments.benchmarks.measuring import side_by_side
from experiments.benchmarks.peers import ours
from experiments.benchmarks.peers import work as works
from experiments.benchmarks.peers.contender import Contender, LeftOutError
from experiments.kit import revolve
from experiments.study import Report

FULL = "full"


class Slots(NamedTuple):
    """One number of slots.

    Attributes:
        slots: c.
        seconds: ``[rounds]``.
        temporaries: bytes, from the compiler.
        formula: forward steps by the formula.
        steps: forward steps as planned with one step to a block, without gates: what the formula is about.
        steps_run: the same for the blocks that were timed.
        error: of the gradient.
    """

    slots: int
    seconds: np.ndarray
    temporaries: int | None
    formula: int
    steps: int
    steps_run: int
    error: float


class Checkpointing(NamedTuple):
    """All of them, and `adjoints.full` in the same rounds; and who is missing, and why."""

    cell: str
    shape: works.Shape
    slots: tuple[Slots, ...]
    full_seconds: np.ndarray
    full_temporaries: int | None
    left_out: dict[str, str]


def contestants(slots: Sequence[int]) -> tuple[Contender, ...]:
    """`adjoints.full`, and `adjoints.checkpointed` with each number of slots."""
    return (
        ours.ours(FULL, jb.adjoints.full),
        *(ours.ours(str(c), functools.partial(jb.adjoints.checkpointed, slots=c)) for c in sorted(set(slots))),
    )


def at(
    work: works.Work, contestants: Sequence[Contender], rounds: int, limit: float, report: Report
) -> side_by_side.SideBySide:
    """All of them side by side. Arguments as for `speed.row`.

    Raises:
        LeftOutError: without `adjoints.full` there is nothing to be beside of.
    """
    found = side_by_side.side_by_side(work, contestants, rounds, limit, report, what="checkpoint")
    if FULL not in found.timed:
        raise LeftOutError(f"{FULL}: {found.left_out.get(FULL, 'not asked')}")
    return found


def beside_full(work: works.Work, found: side_by_side.SideBySide) -> Checkpointing:
    """What was measured, with the steps that are planned."""
    full = found.timed[FULL]
    slots = tuple(
        Slots(
            c,
            one.seconds,
            one.temporaries,
            revolve.steps(work.shape.T, c),
            planned(work, jb.adjoints.checkpointed(slots=c, block=1, residuals="states")),
            planned(work, jb.adjoints.checkpointed(slots=c)),
            one.error,
        )
        for c, one in sorted((int(name), one) for name, one in found.timed.items() if name != FULL)
    )
    return Checkpointing(work.cell, work.shape, slots, full.seconds, full.temporaries, found.left_out)


def planned(work: works.Work, adjoint: jb.types.Adjoint) -> int:
    """Forward steps of this work."""
    B, T, d, n = work.shape
    return revolve.planned(ours.CELLS[work.cell](), adjoint, T, B, d, n)
