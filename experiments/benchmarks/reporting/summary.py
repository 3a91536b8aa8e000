"""What the numbers say: ratios within a row, their geometric means, and the marks that they are held to.

Ours is the default: `adjoints.full` on one device, and through `jaxbptt.data_parallel` on all. Where the batch can't be
split, "all" is one device.
"""

import statistics
from collections.abc import Sequence
from typing import NamedTuple

from experiments.benchmarks.measuring import length
from experiments.benchmarks.measuring import online as estimators
from experiments.benchmarks.measuring import ragged as ragged_batches
from experiments.benchmarks.measuring.checkpoint import Checkpointing
from experiments.benchmarks.measuring.length import Lengths
from experiments.benchmarks.measuring.long import Row as Long
from experiments.benchmarks.measuring.speed import Row
from experiments.kit import clock

ONE, ALL, TORCH, BFLOAT16 = "full", "full, split", "torch.nn", "bfloat16"
BIG = ("lstm", (64, 256, 256, 256))
PLAIN = length.PLAIN
ONLINE = {"uoro, GRU": 4, "snap, sparse GRU": 0.2, "rtrl, GRU": 2}
RAGGED = {"lengths": 1.1, "half of the steps": 0.65, "three layers": 0.8}
MANY = 1_000_000
LONG_MIB = {("lstm", (16, 100_000, 64, 64)): 16, ("gru", (1, 10_000_000, 4, 16)): 1024}


class Ratios(NamedTuple):
    """Of one row; ``None`` where somebody is missing.

    Attributes:
        best_peer: the fastest JAX peer.
        best_own: the fastest of ours in float32, for information: a default can't be chosen afterwards.
        one: ours on one device over that peer, with quartiles over the rounds.
        every: ours on all devices over that peer.
        torch: ours on all devices over torch.
    """

    best_peer: str | None
    best_own: str | None
    one: clock.Spread | None
    every: clock.Spread | None
    torch: clock.Spread | None


class Mark(NamedTuple):
    """What is to be reached, what was measured, and whether that reaches it."""

    what: str
    limit: str
    measured: str
    met: bool


def ratios(row: Row) -> Ratios:
    """`Ratios` of a row."""
    best, best_own = (_fastest(row, kind) for kind in ("jax", "ours"))
    one = row.timed.get(ONE)
    every = row.timed.get(ALL, one)

    def over(own, name):
        other = row.timed.get(name)
        return clock.ratio(own.seconds, other.seconds) if own is not None and other is not None else None

    return Ratios(best, best_own, over(one, best), over(every, best), over(every, TORCH))


def _fastest(row, kind):
    own = {name: one for name, one in row.timed.items() if one.kind == kind and not (kind == "ours" and one.differs)}
    medians = {name: clock.spread(one.seconds).median for name, one in own.items()}
    return min(medians, key=lambda name: medians[name], default=None)


def means(rows: Sequence[Row]) -> dict[str, float]:
    """The geometric means of ``one``, ``every`` and ``torch`` over the rows that have them."""
    every = [ratios(row)._asdict() for row in rows]
    columns = {name: [row[name].median for row in every if row[name] is not None] for name in ("one", "every", "torch")}
    return {name: clock.geometric_mean(values) for name, values in columns.items() if values}


def marks(
    rows: Sequence[Row],
    checkpointing: Checkpointing | None,
    lengths: Lengths | None,
    bfloat16_units: bool,
    long: Sequence[Long] = (),
) -> list[Mark]:
    """The marks for which something was measured; how fast bfloat16 is counts where the machine has units for it."""
    return [
        *_speed(rows),
        *_temporaries(rows),
        *_checkpoint(checkpointing),
        *_length(lengths),
        *_long(long),
        *_bfloat16(rows, bfloat16_units),
    ]


def online(costs: Sequence[estimators.Costs], streams: Sequence[estimators.Stream]) -> list[Mark]:
    """The marks of estimators, at the sizes that they are for."""
    found = []
    for row in costs:
        if row.size not in (estimators.SIZE, 2 * estimators.SIZE):
            continue
        if row.what == "rtrl, diagonal":
            found.append(_at_most("rtrl, diagonal: time ∝ |θ_h| to the power of", estimators.exponent(row), 1.1))
            continue
        first, second, *_ = row.seconds
        over = clock.ratio(row.seconds[first], row.seconds[second]).median
        found.append(_at_most(f"{row.what}, n = {row.size}: {first} / {second}", over, ONLINE[row.what]))
    for row in streams:
        if row.steps >= MANY:
            more, one = (row.peak - row.first) / 2**20, 4 * row.steps / 2**20  # a number of float32 a step
            found.append(
                _at_most(f"{row.estimator}, {row.steps:,} steps: MiB more than 2,000 take", more, round(one, 1))
            )
    return found


def ragged(costs: Sequence[estimators.Costs]) -> list[Mark]:
    """The marks of sequences: of the first over the second, at the size that they are for."""
    found = []
    for row in costs:
        if row.size == ragged_batches.SIZE and row.what in RAGGED:
            first, second, *_ = row.seconds
            over = clock.ratio(row.seconds[first], row.seconds[second]).median
            found.append(_at_most(f"{row.what}, n = {row.size}: {first} / {second}", over, RAGGED[row.what]))
    return found


def _at_most(what, value, limit, form="{:.2f}"):
    return Mark(what, f"≤ {limit:g}", form.format(value), value <= limit)


def _speed(rows):
    ones = {f"{row.cell} {row.shape}": ratios(row).one for row in rows}
    ones = {name: one for name, one in ones.items() if one is not None}
    if ones:
        slower = [f"{name} ({one.median:.2f})" for name, one in ones.items() if min(one.low, one.median) > 1]
        what = "one device: rows slower than the best JAX peer, beyond the quartiles"
        yield Mark(what, "none", ", ".join(slower) or "none", not slower)
    found = means(rows)
    for name, what, limit in (
        ("one", "one device / best JAX peer, geometric mean", 0.75),
        ("every", "all devices / best JAX peer, geometric mean", 0.6),
        ("torch", "all devices / torch.nn, geometric mean", 0.95),
    ):
        if name in found:
            yield _at_most(what, found[name], limit)


def _temporaries(rows):
    for row in rows:
        plain = row.timed.get(PLAIN)
        if (row.cell, tuple(row.shape)) != BIG or plain is None or not plain.temporaries:
            continue
        own = {
            name: timed
            for name, timed in row.timed.items()
            if timed.kind == "ours" and not (timed.split or timed.differs)
        }
        found = {
            name: (timed.temporaries / plain.temporaries, clock.ratio(timed.seconds, plain.seconds))
            for name, timed in own.items()
            if timed.temporaries is not None
        }
        fit = {name: both for name, both in found.items() if both[1].low <= 1}  # at no more time, within the quartiles
        if not fit:
            yield Mark(f"temporaries of {row.cell} {row.shape} / plain jax.grad's", "≤ 0.33", "none is as fast", False)
            continue
        name, (share, time) = min(fit.items(), key=lambda item: item[1][0])
        what = f"temporaries of {row.cell} {row.shape} / plain jax.grad's, at no more time"
        yield Mark(what, "≤ 0.33", f"{share:.2f} by {name}, at {time.median:.2f} of its time", share <= 1 / 3)


def _checkpoint(found):
    if found is None:
        return
    right = all(one.steps == one.formula for one in found.slots)
    yield Mark("checkpointed: forward steps planned, by the formula", "equal", "equal" if right else "not equal", right)
    for one in found.slots:
        if one.slots * 20 == found.shape.T:
            over = clock.ratio(one.seconds, found.full_seconds).median
            what = f"checkpointed, {one.slots} slots for T = {found.shape.T}, n = {found.shape.n}: time / full"
            yield _at_most(what, over, 1.35)
            kept = f"{one.slots + 1} rows"  # by construction: the compiler's figure says what it comes to
            if one.temporaries is not None and found.full_temporaries:
                kept += f"; all temporaries {one.temporaries / found.full_temporaries:.1%} of full's"
            yield Mark("the same: kept of the states", f"5% of {found.shape.T} and the one in hand", kept, True)


def _length(found):
    if found is None:
        return
    own = {name: points for name, points in found.points.items() if name != PLAIN and points}
    for name, points in own.items():
        power = length.exponent(points)
        if power is not None:
            yield Mark(f"{name}: time ∝ T to the power of, T ≥ 1000", "0.9 to 1.1", f"{power:.2f}", 0.9 <= power <= 1.1)
        seconds = [point.compile_seconds for point in points]
        largest = seconds[-1] / statistics.median(seconds)
        yield _at_most(f"{name}: compile time at the largest T / median over T", largest, 1.5)
        plain = {point.T: point.compile_seconds for point in found.points.get(PLAIN, ())}
        over = [point.compile_seconds / plain[point.T] for point in points if point.T in plain]
        if over:
            mean = clock.geometric_mean(over)
            yield _at_most(f"{name}: compile time / plain scan's, geometric mean over T", mean, 2)


def _long(rows):
    for row in rows:
        most = LONG_MIB.get((row.case.cell, tuple(row.case.shape)))
        if most is not None and row.temporaries is not None:
            yield _at_most(f"checkpointed {row.case}: temporaries, MiB", row.temporaries / 2**20, most)


def _bfloat16(rows, units):
    rows = [row for row in rows if ONE in row.timed and BFLOAT16 in row.timed]
    if rows:
        worst = max(row.timed[BFLOAT16].error for row in rows)
        yield _at_most(
            "bfloat16: worst relative error of a gradient, over parameters, xs and h_0", worst, 0.02, "{:.4f}"
        )
    large = [row for row in rows if row.shape.n >= 256]
    if units and large:
        faster = [clock.ratio(row.timed[ONE].seconds, row.timed[BFLOAT16].seconds).median for row in large]
        what = "bfloat16: times faster than float32, n ≥ 256, the least of all rows"
        yield Mark(what, "≥ 1.5", f"{min(faster):.2f} (mean {clock.geometric_mean(faster):.2f})", min(faster) >= 1.5)
