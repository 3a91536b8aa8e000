"""Contenders side by side: each is built and checked against the plain scan, then all are timed in turns."""

import contextlib
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import jax
import numpy as np

from experiments.benchmarks.peers import contenders, plain
from experiments.benchmarks.peers import work as works
from experiments.benchmarks.peers.contender import Contender, LeftOutError
from experiments.kit import clock
from experiments.study import Report
from jaxbptt.checking import GradientMismatchError

TOLERANCE = {"cpu": 1e-3}  # of a float32 gradient, by backend
TF32_TOLERANCE = 1e-2  # elsewhere products in float32 have operands of 10 bits by default: 2e-3 in an emulation
WRONG = "WRONG GRADIENT: "  # how the reason begins where one of ours is left out for it


class Timed(NamedTuple):
    """One contender.

    Attributes:
        seconds: ``[rounds]``, of one loss and gradient; NaN for a round without it.
        compile_seconds: tracing and compiling; ``None`` for what isn't compiled.
        temporaries: bytes, from the compiler; ``None`` where it doesn't say.
        error: the worst relative error of its gradient, over parameters, xs and h_0.
        kind: ``"ours"``, ``"jax"`` or ``"other"``.
        split: whether it splits the batch itself.
        differs: whether it is another function than the rest, or in another precision.
    """

    seconds: np.ndarray
    compile_seconds: float | None
    temporaries: int | None
    error: float
    kind: str
    split: bool
    differs: bool


class SideBySide(NamedTuple):
    """What was found.

    Attributes:
        timed: by contender.
        left_out: who is missing, and why.
        extra: ``[rounds]`` seconds of what else was timed.
    """

    timed: dict[str, Timed]
    left_out: dict[str, str]
    extra: dict[str, np.ndarray]


def side_by_side(
    work: works.Work,
    contestants: Sequence[Contender],
    rounds: int,
    limit: float,
    report: Report,
    *,
    what: str,
    extra: Mapping[str, Callable[[], object]] | None = None,
) -> SideBySide:
    """Builds, checks, and times.

    Args:
        work: what to do.
        contestants: who.
        rounds: how often.
        limit: seconds for one contender; slow ones take part in fewer rounds.
        report: of progress; the note is whose turn it is.
        what: the stages of the report begin with it.
        extra: calls to be timed in the same rounds, nobody's.

    Returns:
        The `SideBySide`.

    Raises:
        GradientMismatchError: when a gradient of this library is wrong; a peer's leaves that peer out.
    """
    reference = functools.cache(functools.partial(_reference, work))
    report(f"{what}: the reference", 0, 1)  # at nobody's expense: no contender is named
    with contextlib.suppress(LeftOutError):
        reference(False)
    report(f"{what}: the reference", 1, 1)
    calls, checked, left_out = {}, {}, {}
    for k, contender in enumerate(contestants):
        report(f"{what}: compiling and checking", k, len(contestants), contender.name)
        try:
            built = contenders.build(contender, work)
            checked[contender.name] = built, check(contender, work, built, reference(work.cell in contender.differs))
            calls[contender.name] = lambda built=built: built.wait(built.run())
        except LeftOutError as reason:
            left_out[contender.name] = str(reason)
            _require_device(reason)
    report(f"{what}: compiling and checking", len(contestants), len(contestants))
    extra = extra or {}
    times = clock.interleaved(
        {**calls, **extra},
        rounds,
        limit,
        lambda *done: report(f"{what}: rounds", *done),
        # Says whose turn it is, where a report can be needed: the clock isn't running.
        lambda k, of, name: report(f"{what}: rounds", k, of, name if name in calls else ""),
    )
    by_name = {contender.name: contender for contender in contestants}
    timed = {
        name: Timed(
            times[name],
            built.compile_seconds,
            built.temporaries,
            error,
            by_name[name].kind,
            by_name[name].split,
            work.cell in by_name[name].differs or by_name[name].tolerance is not None,
        )
        for name, (built, error) in checked.items()
    }
    return SideBySide(timed, left_out, {name: times[name] for name in extra})


def wrong(left_out: Mapping[str, str]) -> dict[str, str]:
    """Whose gradient, of ours, was left out as wrong, and how."""
    return {who: reason for who, reason in left_out.items() if reason.startswith(WRONG)}


def _require_device(reason):
    """An error of a GPU may stay for all that come after in this process: better lost while it is known at whom.

    Raises:
        RuntimeError: when the device computes no more.
    """
    try:
        jax.block_until_ready(jax.numpy.zeros(1) + 1)
    except Exception as error:
        raise RuntimeError(f"{reason}; and the device computes no more") from error


def _reference(work, reset_before):
    try:
        return plain.reference(work, reset_before)
    except Exception as error:  # out of memory, say
        raise LeftOutError(f"nothing to check it against: {error}".splitlines()[0][:200]) from error


def check(contender: Contender, work: works.Work, built, reference) -> float:
    """The worst relative error of its loss and gradient against the reference.

    Raises:
        GradientMismatchError: when it is one of ours, and wrong by more than the rounding of float32.
        LeftOutError: when it is a peer's, and wrong, or can't be computed; or is ours where products are rounded more.
    """
    try:
        errors = works.errors(built.gradient(built.wait(built.run())), reference)
    except Exception as error:
        raise LeftOutError(f"{type(error).__name__}: {error}".splitlines()[0][:200]) from error
    name = max(errors, key=lambda name: errors[name] if errors[name] == errors[name] else np.inf)
    allowed = contender.tolerance or TOLERANCE.get(jax.default_backend(), TF32_TOLERANCE)
    if not errors[name] <= allowed:
        wrong = (
            f"the {name} of {contender.name} ({work.cell} {work.shape}) is off the plain scan's by {errors[name]:.1e}"
        )
        certain = contender.kind == "ours" and jax.default_backend() in TOLERANCE
        if certain:
            raise GradientMismatchError(wrong)
        raise LeftOutError(f"{WRONG if contender.kind == 'ours' else ''}{wrong}")
    return errors[name]
