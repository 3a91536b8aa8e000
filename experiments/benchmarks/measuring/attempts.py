"""One measurement after another: taken from before when the run goes on, and on a GPU made beside this process."""

import collections
import contextlib
import functools
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax

from experiments.benchmarks.config import Config
from experiments.benchmarks.measuring import beside, kept, side_by_side
from experiments.benchmarks.peers import work as works
from experiments.benchmarks.peers.contender import Contender
from experiments.kit import devices, signals
from experiments.study import Report


class Attempts(NamedTuple):
    """How to measure, and what became of it.

    Attributes:
        make: ``(name, function, *arguments) -> function(measure, *arguments)``, where ``measure(f, *arguments)`` is
            ``f(*arguments, report)``. On a GPU, where nobody may be looking, a failure is written down and the
            answer is ``None``; it ends the run elsewhere. After Ctrl-C, or the signal of a time limit, the answer is
            ``None`` for what was not measured before.
        rest: ends the process beside this one, until there is something to measure in it again.
        failed: what failed, and why, by name.
        seconds: of each measurement, whenever it was made.
        cut_off: what was being measured, or next to be, when the run was told to end; empty where it wasn't.
    """

    make: Callable[..., Any]
    rest: Callable[[], None]
    failed: dict[str, str]
    seconds: list[float]
    cut_off: list[str]


@contextlib.contextmanager
def attempts(config: Config, store: kept.Kept, report: Report) -> Iterator[Attempts]:
    """`Attempts` for a run, whose process beside this one, if any, ends with it."""
    failed, taken, cut_off, told_to_end, at_work, last = {}, [], [], [], [], []
    begin = functools.partial(devices.start, config.gpu, config.devices)
    here = beside.Beside(lambda function, *arguments: function(*arguments, noted), lambda: None)

    def end(*_):
        """Ends what is being measured, once, but nothing else: what was measured is to be written."""
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # it may come twice
        told_to_end.append(True)
        if at_work:
            raise KeyboardInterrupt

    def noted(stage, done, total, note=""):
        last[:] = time.perf_counter(), ", ".join(filter(None, (stage, note)))
        report(stage, done, total, note)

    def cut(name, during=False):
        if not cut_off:
            cut_off.append(name)
            where = f", {time.perf_counter() - last[0]:.0f} s into {last[1]}" if during and last else ""
            failed[f"{name}, and what comes after it"] = f"not measured: the run was told to end{where}"

    def make(name, function, *arguments):
        known = store.get(name)
        if known is None:
            if told_to_end or cut_off:
                return cut(name)
            start = time.perf_counter()
            try:
                at_work.append(name)
                last.clear()
                found = function(process.measure, *arguments)
                at_work.clear()  # here too: what comes now is not to lose what was found
            except KeyboardInterrupt:
                if config.out is None:
                    raise
                return cut(name, during=True)
            except Exception as error:
                if not config.gpu:
                    raise
                failed[name] = _said(error)
                return None
            finally:
                at_work.clear()
            known = time.perf_counter() - start, found
            if not side_by_side.wrong(getattr(found, "left_out", {})):  # that is to be measured again
                store.put(name, *known)
        taken.append(known[0])
        return known[1]

    with (
        signals.answered({signal.SIGTERM: end}),  # a time limit sends it some time before it kills
        beside.beside(begin, noted) if config.gpu else contextlib.nullcontext(here) as process,
    ):
        yield Attempts(make, process.end, failed, taken, cut_off)


def _said(error):
    kind = "" if isinstance(error, beside.LostError) else f"{type(error).__name__}: "
    return f"{kind}{error}"[:500]


def alone(measure: Callable, function: Callable, *arguments: Any) -> Any:
    """``function(*arguments, report)``, whose programs and memory are let go afterwards.

    Args:
        measure: as of `Attempts.make`.
        function: `long.row`.
        arguments: its own.

    Returns:
        What the function returns.
    """
    return measure(_then_let_go, function, *arguments)


def everybody(
    measure: Callable,
    function: Callable,
    work: works.Work,
    contestants: Sequence[Contender],
    rounds: int,
    limit: float,
    lost: collections.Counter[str],
) -> Any:
    """``function(work, contestants, rounds, limit, report)``, again without whoever it was lost at.

    Args:
        measure: as of `Attempts.make`.
        function: `speed.row`, or another whose result has ``timed`` and ``left_out``.
        work: its arguments, like the next three.
        contestants: see there.
        rounds: see there.
        limit: see there.
        lost: how many measurements each contender has ended so far; updated here. One that has ended two is left out
            of later ones. What is lost at nobody's turn is tried again once in a run.

    Returns:
        What the function returns.

    Raises:
        LostError: when for the second time nobody knows at whom, or nobody is left.
    """
    left_out = {contender.name: "ended two rows before" for contender in contestants if lost[contender.name] > 1}
    while True:
        others = tuple(contender for contender in contestants if contender.name not in left_out)
        try:
            found = measure(_then_let_go, function, work, others, rounds, limit)
        except beside.LostError as error:
            if error.at not in {contender.name for contender in others}:
                lost[""] += 1
                if lost[""] > 1:
                    raise
                continue  # once is an accident: of a process that begins, of the reference
            lost[error.at] += 1
            left_out[error.at] = str(error).splitlines()[0][:200]
        else:
            if left_out and not found.timed:
                raise beside.LostError(f"nobody is left: {left_out}", "")
            return found._replace(left_out=found.left_out | left_out)


def _then_let_go(function, *arguments):
    """The programs and the memory of one measurement are not the next one's."""
    try:
        return function(*arguments)
    finally:
        with contextlib.suppress(Exception):  # of a device that computes no more: another error says why
            jax.clear_caches()
            torch = sys.modules.get("torch")
            if torch is not None and torch.cuda.is_initialized():
                torch.cuda.empty_cache()
