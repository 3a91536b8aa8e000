"""One measurement after another: taken from before when the run goes on, and on a GPU made beside this process."""

import collections
import contextlib
import functools
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax

from experiments import devices
from experiments.benchmarks import beside, kept, speed
from experiments.benchmarks import work as works
from experiments.benchmarks.config import Config
from experiments.benchmarks.contender import Contender
from experiments.study import Report


class Attempts(NamedTuple):
    """How to measure, and what became of it.

    Attributes:
        make: ``(name, function, *arguments) -> function(measure, *arguments)``, where ``measure(f, *arguments)`` is
            ``f(*arguments, report)``. On a GPU, where nobody may be looking, a failure is written down and the
            answer is ``None``; it ends the run elsewhere.
        failed: what failed, and why, by name.
        seconds: of each measurement, whenever it was made.
    """

    make: Callable[..., Any]
    failed: dict[str, str]
    seconds: list[float]


@contextlib.contextmanager
def attempts(config: Config, store: kept.Kept, report: Report) -> Iterator[Attempts]:
    """`Attempts` for a run, whose process beside this one, if any, ends with it."""
    failed, taken = {}, []
    begin = functools.partial(devices.start, config.gpu, config.devices)
    here = contextlib.nullcontext(lambda function, *arguments: function(*arguments, report))
    with beside.beside(begin, report) if config.gpu else here as measure:

        def make(name, function, *arguments):
            known = store.get(name)
            if known is None:
                start = time.perf_counter()
                try:
                    found = function(measure, *arguments)
                except Exception as error:
                    if not config.gpu:
                        raise
                    failed[name] = _said(error)
                    return None
                known = time.perf_counter() - start, found
                if not (isinstance(found, speed.Row) and speed.wrong(found)):  # that is to be measured again
                    store.put(name, *known)
            taken.append(known[0])
            return known[1]

        yield Attempts(make, failed, taken)


def _said(error):
    kind = "" if isinstance(error, beside.LostError) else f"{type(error).__name__}: "
    return f"{kind}{error}"[:500]


def row(
    measure: Callable,
    work: works.Work,
    contestants: Sequence[Contender],
    rounds: int,
    limit: float,
    lost: collections.Counter[str],
) -> speed.Row:
    """`speed.row`, again without the contender at which the measurement was lost.

    Args:
        measure: as of `Attempts.make`.
        work: as for `speed.row`, like `contestants`, `rounds` and `limit`.
        contestants: see there.
        rounds: see there.
        limit: see there.
        lost: how many rows each contender has ended so far; updated here. One that has ended two is left out of
            later rows.

    Returns:
        The `speed.Row`.

    Raises:
        LostError: when nobody knows at whom, or nobody is left.
    """
    left_out = {contender.name: "ended two rows before" for contender in contestants if lost[contender.name] > 1}
    while True:
        others = tuple(contender for contender in contestants if contender.name not in left_out)
        try:
            found = measure(_row, work, others, rounds, limit)
        except beside.LostError as error:
            if error.at not in {contender.name for contender in others}:
                raise
            lost[error.at] += 1
            left_out[error.at] = str(error).splitlines()[0][:200]
        else:
            if left_out and not found.timed:
                raise beside.LostError(f"nobody is left: {left_out}", "")
            return found._replace(left_out=found.left_out | left_out)


def _row(work, contestants, rounds, limit, report):
    try:
        return speed.row(work, contestants, rounds, limit, report)
    finally:
        jax.clear_caches()  # the programs of this row are done with
