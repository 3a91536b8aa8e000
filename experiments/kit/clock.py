"""A clock for several contenders: interleaved rounds, and medians with quartiles."""

import math
import time
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np

SHORTEST = 0.02  # seconds: a contender is called in a row until this much has passed, and the mean taken
FEWEST_FOR_ALL = 5  # rounds, unless fewer are asked for
FEWEST = 3  # rounds of a contender that is too slow for all of them
# Seconds between contenders, a quarter of what the one before took: its idle threads stop spinning, and the system
# takes back its memory, which needs a core that the next one may want.
_SETTLE = 0.005, 0.1


class Spread(NamedTuple):
    """Of the rounds of one contender, in seconds, or of a ratio."""

    median: float
    low: float
    high: float
    rounds: int


def spread(values: np.ndarray) -> Spread:
    """Median and quartiles of what isn't NaN.

    >>> spread(np.array([3.0, 1.0, 2.0, np.nan, 5.0, 4.0]))
    Spread(median=3.0, low=2.0, high=4.0, rounds=5)
    """
    values = values[~np.isnan(values)]
    low, median, high = np.quantile(values, (0.25, 0.5, 0.75))
    return Spread(float(median), float(low), float(high), len(values))


def ratio(numerator: np.ndarray, denominator: np.ndarray) -> Spread:
    """Of the ratios within each round in which both took part: what slows a whole round down is not in it.

    >>> ratio(np.array([2.0, np.nan, 6.0]), np.array([4.0, 4.0, 4.0]))
    Spread(median=1.0, low=0.75, high=1.25, rounds=2)
    """
    return spread(numerator / denominator)


def geometric_mean(values: list[float]) -> float:
    """The exponential of the mean logarithm.

    >>> geometric_mean([1.0, 4.0])
    2.0
    """
    return math.exp(sum(map(math.log, values)) / len(values))


def share_rounds(once: Mapping[str, float], most: int, limit: float) -> tuple[int, dict[str, int]]:
    """How many rounds there are, and in how many of them each contender takes part.

    As many as the one in the middle has seconds for, five at least. One that would take more than twice its seconds
    takes part in fewer of them, three at least.

    Args:
        once: seconds of one call, by name.
        most: rounds.
        limit: seconds for all rounds of a contender.

    Returns:
        ``(rounds, own)``.

    >>> share_rounds({"fast": 0.01, "usual": 0.4, "slow": 0.6, "slower": 30.0}, most=9, limit=2.5)
    (5, {'fast': 5, 'usual': 5, 'slow': 5, 'slower': 3})
    """
    usual = float(np.median(list(once.values())))
    rounds = min(most, max(FEWEST_FOR_ALL, int(limit / max(usual, SHORTEST))))
    own = {
        name: rounds if seconds * rounds <= 2 * limit else min(rounds, max(FEWEST, int(2 * limit / seconds)))
        for name, seconds in once.items()
    }
    return rounds, own


def takes_part(k: int, own: int, rounds: int) -> bool:
    """Whether round k is among its own, which lie evenly among all.

    >>> [k for k in range(9) if takes_part(k, 3, 9)]
    [2, 5, 8]
    """
    return (k + 1) * own // rounds > k * own // rounds


def interleaved(
    contenders: Mapping[str, Callable[[], object]],
    rounds: int,
    limit: float,
    report: Callable[[int, int], None],
    turn: Callable[[int, int, str], None] = lambda k, rounds, name: None,
) -> dict[str, np.ndarray]:
    """Seconds of one call of each, ``[rounds]``, NaN for a round without it.

    Every round calls all contenders in turn, every other round in the opposite order, so that whatever else the machine
    does falls on all alike. Before its turn there is a pause, longer after a long call, and a contender is called once
    without the clock unless that alone takes long; short ones are then called several times.

    Args:
        contenders: each returns when its result is there; called before, so that nothing compiles.
        rounds: the most.
        limit: seconds for all rounds of one contender: see `share_rounds`.
        report: of progress, ``(done, total)``.
        turn: ``(done, total, name)``, before a contender is called.

    Returns:
        The times by name.
    """
    names = list(contenders)
    if not names:  # nobody could do the work
        return {}
    once = {}
    for name in names:
        turn(0, rounds, name)
        once[name] = clock(contenders[name], 1)
    calls = {name: max(1, math.ceil(SHORTEST / once[name])) for name in names}
    rounds, own = share_rounds(once, rounds, limit)
    times = {name: np.full(rounds, np.nan) for name in names}
    before = 0.0
    for k in range(rounds):
        for name in names if k % 2 == 0 else reversed(names):
            if not takes_part(k, own[name], rounds):
                continue
            turn(k, rounds, name)
            time.sleep(float(np.clip(before / 4, *_SETTLE)))
            if calls[name] > 1:
                contenders[name]()
            times[name][k] = before = clock(contenders[name], calls[name])
        report(k + 1, rounds)
    return times


def clock(call: Callable[[], object], calls: int) -> float:
    """Mean seconds of so many calls in a row."""
    start = time.perf_counter()
    for _ in range(calls):
        call()
    return (time.perf_counter() - start) / calls
