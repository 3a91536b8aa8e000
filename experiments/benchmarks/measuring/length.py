"""Time, temporaries and compile time against T: the first should be linear, the last constant. F reads h_T alone."""

import contextlib
from collections.abc import Sequence
from typing import NamedTuple

import jax
import numpy as np

from experiments.benchmarks.measuring.side_by_side import side_by_side
from experiments.benchmarks.peers import contenders, ours, plain
from experiments.benchmarks.peers import work as works
from experiments.benchmarks.peers.contender import Contender, LeftOutError
from experiments.kit import clock
from experiments.study import Report

CONTENDERS = tuple(
    contender
    for contender in (*ours.CONTENDERS, *plain.CONTENDERS)
    if contender.flag in ("full", "full-states", "checkpointed", "scan") and not contender.split
)
PLAIN = "scan"
COMPILATIONS = {"cpu": 4}  # of each, by backend; elsewhere one, as there most of a run would be compilation


class Point(NamedTuple):
    """One contender at one T.

    Attributes:
        T: steps.
        seconds: ``[rounds]``.
        compile_seconds: tracing and compiling, the shortest of as many as `COMPILATIONS` says.
        temporaries: bytes, from the compiler.
        error: of the gradient.
    """

    T: int
    seconds: np.ndarray
    compile_seconds: float
    temporaries: int | None
    error: float


class At(NamedTuple):
    """Everybody at one T.

    Attributes:
        T: steps.
        timed: the `Point` of each contender.
        left_out: who is missing, and why.
    """

    T: int
    timed: dict[str, Point]
    left_out: dict[str, str]


class Lengths(NamedTuple):
    """`Point` s by contender, T rising; and who is missing where, and why."""

    cell: str
    shape: works.Shape
    points: dict[str, tuple[Point, ...]]
    left_out: dict[str, str]


def at(work: works.Work, contestants: Sequence[Contender], rounds: int, limit: float, report: Report) -> At:
    """Everybody at one T, that of the work. Arguments as for `speed.row`."""
    fewest = _compile_seconds(work, contestants, report)
    found = side_by_side(work, contestants, rounds, limit, report, what="length, this T")
    points = {
        name: Point(
            work.shape.T,
            one.seconds,
            min(fewest.get(name, np.inf), np.inf if one.compile_seconds is None else one.compile_seconds),
            one.temporaries,
            one.error,
        )
        for name, one in found.timed.items()
    }
    return At(work.shape.T, points, found.left_out)


def together(cell: str, shape: works.Shape, found: Sequence[At]) -> Lengths:
    """The lengths that were measured, T rising, as one."""
    points = {
        contender.name: tuple(one.timed[contender.name] for one in found if contender.name in one.timed)
        for contender in CONTENDERS
    }
    left_out = {f"{who}, T = {one.T}": reason for one in found for who, reason in one.left_out.items()}
    return Lengths(cell, shape, points, left_out)


def _compile_seconds(work, contestants, report):
    """Of builds that are thrown away, everybody in turn: the shortest of several is less the machine's."""
    found, thrown_away = {}, COMPILATIONS.get(jax.default_backend(), 1) - 1
    for once in range(thrown_away):
        for contender in contestants:
            report("length, this T: compilations", once, thrown_away, contender.name)
            with contextlib.suppress(LeftOutError):
                seconds = contenders.build(contender, work).compile_seconds or np.inf
                found[contender.name] = min(found.get(contender.name, np.inf), seconds)
        jax.clear_caches()
    report("length, this T: compilations", thrown_away, thrown_away)
    return found


def exponent(points: Sequence[Point], least: int = 1000) -> float | None:
    """The p of time ∝ Tᵖ, by least squares over T ≥ `least`; ``None`` for fewer than two of them.

    >>> double = [Point(T, np.array([1e-6 * T]), 1.0, 0, 0.0) for T in (10, 1000, 2000, 4000)]
    >>> round(exponent(double), 6)
    1.0
    """
    long = [point for point in points if least <= point.T]
    times = [clock.spread(point.seconds).median for point in long]
    return float(np.polyfit(np.log([point.T for point in long]), np.log(times), 1)[0]) if len(long) > 1 else None
