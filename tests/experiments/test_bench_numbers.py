"""The numbers of the benchmark: the clock, the statistics, the ratios and the marks, by hand."""

import numpy as np
import pytest

from experiments.benchmarks.measuring import checkpoint, length
from experiments.benchmarks.measuring.side_by_side import Timed
from experiments.benchmarks.measuring.speed import Row
from experiments.benchmarks.peers import work as works
from experiments.benchmarks.reporting import summary
from experiments.kit import clock, revolve


def silent(*progress):
    pass


def test_statistics_by_hand():
    assert clock.spread(np.array([1.0, 2.0, 3.0, 4.0, 100.0])) == (3.0, 2.0, 4.0, 5)
    nan = np.nan
    assert clock.ratio(np.array([2.0, 3.0, nan]), np.array([1.0, 2.0, 1.0])) == (1.75, 1.625, 1.875, 2)
    assert clock.geometric_mean([0.5, 2.0, 8.0]) == pytest.approx(2)
    assert works.flops("gru", works.Shape(B=2, T=3, d=5, n=7)) == 3 * 2 * (2 * 3 * 3 * 7 * 5 + 2 * 3 * 3 * 7 * 7)


def test_each_takes_part_in_as_many_rounds_as_its_own_and_in_the_last():
    for rounds in range(1, 12):
        for own in range(1, rounds + 1):
            part = [clock.takes_part(k, own, rounds) for k in range(rounds)]
            assert sum(part) == own
            assert part[-1]


def test_rounds_alternate_and_the_slow_one_has_fewer(monkeypatch):
    """With a clock that only the contenders move."""
    order, now = [], [0.0]

    def contender(name, seconds):
        def call():
            order.append(name)
            now[0] += seconds

        return call

    monkeypatch.setattr(clock.time, "perf_counter", lambda: now[0])
    calls = {"a": contender("a", 0.021), "b": contender("b", 0.022), "slow": contender("slow", 0.1)}
    times = clock.interleaved(calls, 7, 0.15, silent)
    monkeypatch.undo()
    assert order[:3] == ["a", "b", "slow"]
    assert len(times["a"]) == 6  # 0.15 / 0.022…
    assert np.isnan(times["a"]).sum() == 0
    assert np.isnan(times["slow"]).sum() == 3
    np.testing.assert_allclose(times["slow"][~np.isnan(times["slow"])], 0.1)
    np.testing.assert_allclose(times["a"], 0.021)
    assert [name for name in order[3:] if name != "slow"] == ["a", "b", "b", "a"] * 3


def test_the_formula_for_steps_is_the_optimum_by_dynamic_programming():
    T, m = 40, 6
    C = np.zeros((T + 1, m + 1), int)
    C[:, 1] = [t * (t + 1) // 2 for t in range(T + 1)]
    for slots in range(2, m + 1):
        C[1, slots] = 1
        for t in range(2, T + 1):
            C[t, slots] = min(y + C[t - y, slots - 1] + C[y, slots] for y in range(1, t))
    for t in range(1, T + 1):
        for slots in range(1, m + 1):
            assert revolve.steps(t, slots) + t == C[t, slots]


def row_of(medians, cell="lstm", shape=(64, 256, 256, 256), temporaries=None):
    kinds = {"full": "ours", "full-states": "ours", "full, split": "ours", "torch.nn": "other"}
    timed = {
        name: Timed(
            np.array([0.9, 1.0, 1.1]) * median,
            0.5,
            (temporaries or {}).get(name),
            0.0,
            kinds.get(name, "jax"),
            "split" in name,
            False,
        )
        for name, median in medians.items()
    }
    return Row(cell, works.Shape(*shape), timed, {}, 3e11, 1e11)


def test_ratios_and_marks_by_hand():
    medians = {"full": 0.3, "full-states": 0.35, "full, split": 0.2, "scan": 0.4, "haiku": 0.5, "torch.nn": 0.25}
    temporaries = {"full": 50, "full-states": 30, "scan": 100}
    big = row_of(medians, temporaries=temporaries)
    alone = row_of({"full": 0.6, "scan": 0.5, "torch.nn": 1.2}, cell="elman", shape=(1, 9, 2, 2))
    found = summary.ratios(big)
    assert (found.best_peer, found.best_own) == ("scan", "full, split")
    assert (found.one.median, found.every.median, found.torch.median) == pytest.approx((0.75, 0.5, 0.8))
    assert summary.ratios(alone).every.median == pytest.approx(1.2)  # cannot be split: one device
    means = summary.means([big, alone])
    assert means == pytest.approx(
        {"one": (0.75 * 1.2) ** 0.5, "every": (0.5 * 1.2) ** 0.5, "torch": (0.8 * 0.5) ** 0.5}
    )
    marks = {mark.what.split(":")[0].split(",")[0]: mark for mark in summary.marks([big, alone], None, None, True)}
    assert marks["one device"].measured == "elman 1,9,2,2 (1.20)"
    assert not marks["one device"].met
    assert not marks["all devices / best JAX peer"].met
    assert marks["all devices / torch.nn"].met
    shares = next(mark for mark in summary.marks([big], None, None, True) if mark.what.startswith("temporaries"))
    assert shares.met
    assert shares.measured.startswith("0.30 by full-states")
    slow = row_of(medians | {"full-states": 0.7}, temporaries=temporaries)
    shares = next(mark for mark in summary.marks([slow], None, None, True) if mark.what.startswith("temporaries"))
    assert not shares.met
    low = big.timed["full"]._replace(seconds=np.array([0.15, 0.15, 0.15]), error=0.011, differs=True)
    fast = big._replace(timed=big.timed | {"bfloat16": low})
    assert summary.ratios(fast).best_own == "full, split"  # in float32
    error, speed_up = (mark for mark in summary.marks([fast], None, None, True) if mark.what.startswith("bfloat16"))
    assert error.met
    assert error.measured == "0.0110"
    assert speed_up.measured == "2.00 (mean 2.00)"
    assert len([mark for mark in summary.marks([fast], None, None, False) if mark.what.startswith("bfloat16")]) == 1
    nobody = summary.ratios(row_of({"full": 0.3}))
    assert (nobody.best_peer, nobody.one, nobody.torch) == (None, None, None)


def test_marks_of_the_sweeps_by_hand():
    shape = works.Shape(16, 1000, 256, 256)
    slots = checkpoint.Slots(50, np.array([1.3, 1.4, 1.35]), 8, 1948, 1948, 1979, 0.0)
    found = checkpoint.Checkpointing("lstm", shape, (slots,), np.ones(3), 100, {})
    equal, time_over_full, kept = summary.marks([], found, None, False)
    assert (equal.met, time_over_full.met, time_over_full.measured) == (True, True, "1.35")
    assert kept.measured == "51 rows; all temporaries 8.0% of full's"
    unequal = found._replace(slots=(slots._replace(steps=1949),), full_seconds=np.full(3, 0.5))
    assert [mark.met for mark in summary.marks([], unequal, None, False)[:2]] == [False, False]

    def points(power, compile_seconds):
        return tuple(length.Point(T, np.full(3, T**power), compile_seconds, 9, 0.0) for T in (100, 1000, 10_000))

    lengths = length.Lengths("lstm", shape, {"full": points(1.0, 1.5), "scan": points(1.0, 1.0)}, {})
    assert [mark.met for mark in summary.marks([], None, lengths, False)] == [True, True, True]
    lengths = lengths._replace(points={"full": points(1.5, 2.5), "scan": points(1.0, 1.0)})
    assert [mark.measured for mark in summary.marks([], None, lengths, False)] == ["1.50", "1.00", "2.50"]
    assert not any(mark.met for mark in summary.marks([], None, lengths, False) if mark.measured != "1.00")
