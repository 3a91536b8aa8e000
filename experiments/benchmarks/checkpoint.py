"""Time and temporaries of `adjoints.checkpointed` against its slots, beside the formula.

    r·T - C(c + r, c + 1) steps,  r = min {r : C(c + r, c) ≥ T}

A gradient that keeps everything runs T steps forward and T backward; with a step backward taken for two forward, the
time beside it should be (steps / T + 2) / 3, and the states kept c / T of it. F reads h_T alone.

Source: Griewank and Walther (2000), Algorithm 799: revolve.
"""

import functools
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import numpy as np

import jaxbptt as jb
from experiments.benchmarks import measure, ours, plain, speed
from experiments.benchmarks import work as works


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
    """All of them, and `adjoints.full` in the same rounds."""

    cell: str
    shape: works.Shape
    slots: tuple[Slots, ...]
    full_seconds: np.ndarray
    full_temporaries: int | None


def steps(T: int, slots: int) -> int:
    """The fewest forward steps with which T steps can be reversed with so many slots.

    >>> [steps(1000, c) for c in (10, 30, 50, 100)]
    [3636, 2472, 1948, 1898]
    """
    r = next(r for r in range(T + 1) if math.comb(slots + r, slots) >= T)
    return r * T - math.comb(slots + r, slots + 1)


def run(work: works.Work, slots: Sequence[int], rounds: int, limit: float, report: Callable) -> Checkpointing:
    """Checks, then times all numbers of slots and `adjoints.full` in turns."""
    chosen = sorted(set(slots))
    reference = plain.reference(work)
    adjoints = {"full": jb.adjoints.full} | {
        str(c): functools.partial(jb.adjoints.checkpointed, slots=c) for c in chosen
    }
    built, errors = {}, {}
    for k, (name, adjoint) in enumerate(adjoints.items()):
        built[name] = ours.build(work, adjoint=adjoint)
        errors[name] = speed.check(ours.ours(name, adjoint), work, built[name], reference)
        report("checkpoint: compiling and checking", k + 1, len(adjoints))
    calls = {name: lambda one=one: one.wait(one.run()) for name, one in built.items()}
    times = measure.interleaved(calls, rounds, limit, lambda *done: report("checkpoint: rounds", *done))
    found = tuple(
        Slots(
            c,
            times[str(c)],
            built[str(c)].temporaries,
            steps(work.shape.T, c),
            planned(work, jb.adjoints.checkpointed(slots=c, block=1, residuals="states")),
            planned(work, jb.adjoints.checkpointed(slots=c)),
            errors[str(c)],
        )
        for c in chosen
    )
    return Checkpointing(work.cell, work.shape, found, times["full"], built["full"].temporaries)


def planned(work: works.Work, adjoint: jb.types.Adjoint) -> int:
    """Forward steps: one sweep for F, to h_T only once, and what is run again."""
    B, T, d, n = work.shape
    cell = ours.CELLS[work.cell]()
    theta_h = jax.eval_shape(lambda: cell.init(jax.random.key(0), d, n))
    xs = jax.ShapeDtypeStruct((T, B, d), np.float32)
    (row,) = jb.plan(cell, theta_h, xs, adjoints={"": adjoint}, reads="last").rows
    return T - 1 + row.extra_steps
