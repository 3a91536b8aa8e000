"""Time, temporaries and compile time against T: the first should be linear, the last constant. F reads h_T alone."""

import contextlib
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import numpy as np

from experiments.benchmarks import contenders, measure, ours, plain, speed
from experiments.benchmarks import work as works
from experiments.benchmarks.contender import LeftOutError

CONTENDERS = tuple(
    contender
    for contender in (*ours.CONTENDERS, *plain.CONTENDERS)
    if contender.flag in ("full", "full-states", "checkpointed", "scan") and not contender.split
)
PLAIN = "scan"
COMPILATIONS = 4


class Point(NamedTuple):
    """One contender at one T.

    Attributes:
        T: steps.
        seconds: ``[rounds]``.
        compile_seconds: tracing and compiling, the shortest of `COMPILATIONS`.
        temporaries: bytes, from the compiler.
        error: of the gradient.
    """

    T: int
    seconds: np.ndarray
    compile_seconds: float
    temporaries: int | None
    error: float


class Lengths(NamedTuple):
    """`Point` s by contender, T rising."""

    cell: str
    shape: works.Shape
    points: dict[str, tuple[Point, ...]]
    left_out: dict[str, str]


def run(
    cell: works.CellName,
    shape: works.Shape,
    lengths: Sequence[int],
    rounds: int,
    limit: float,
    seed: int,
    report: Callable,
) -> Lengths:
    """Every contender at every T; `shape` gives the rest."""
    points: dict[str, tuple[Point, ...]] = {contender.name: () for contender in CONTENDERS}
    left_out = {}
    for k, T in enumerate(sorted(set(lengths))):
        work = works.make(cell, shape._replace(T=T), seed, reads="last")
        reference = plain.reference(work)
        compile_seconds = _compile_seconds(work, report)
        built, errors = {}, {}
        for contender in CONTENDERS:
            try:
                one = contenders.build(contender, work)
                errors[contender.name] = speed.check(contender, work, one, reference)
                built[contender.name] = one
            except LeftOutError as reason:
                left_out[f"{contender.name}, T = {T}"] = str(reason)
        calls = {name: lambda one=one: one.wait(one.run()) for name, one in built.items()}
        times = measure.interleaved(calls, rounds, limit, lambda *done: report("length: rounds, this T", *done))
        for name, one in built.items():
            shorter = min(compile_seconds.get(name, np.inf), one.compile_seconds)
            point = Point(T, times[name], shorter, one.temporaries, errors[name])
            points[name] = (*points[name], point)
        report("length: T", k + 1, len(set(lengths)))
    return Lengths(cell, shape, points, left_out)


def _compile_seconds(work, report):
    """Of builds that are thrown away, everybody in turn: the shortest of several is less the machine's."""
    found = {}
    for once in range(COMPILATIONS - 1):
        for contender in CONTENDERS:
            with contextlib.suppress(LeftOutError):
                seconds = contenders.build(contender, work).compile_seconds or np.inf
                found[contender.name] = min(found.get(contender.name, np.inf), seconds)
        jax.clear_caches()
        report("length: compilations, this T", once + 1, COMPILATIONS - 1)
    return found


def exponent(points: Sequence[Point], least: int = 1000) -> float | None:
    """The p of time ∝ Tᵖ, by least squares over T ≥ `least`; ``None`` for fewer than two of them.

    >>> double = [Point(T, np.array([1e-6 * T]), 1.0, 0, 0.0) for T in (10, 1000, 2000, 4000)]
    >>> round(exponent(double), 6)
    1.0
    """
    long = [point for point in points if least <= point.T]
    times = [measure.spread(point.seconds).median for point in long]
    return float(np.polyfit(np.log([point.T for point in long]), np.log(times), 1)[0]) if len(long) > 1 else None
