"""Estimators in the benchmark: who is timed beside whom, and marks that can be missed."""

import json

import numpy as np
import pytest

pytest.importorskip("tyro")
pytest.importorskip("matplotlib")
pytest.importorskip("rich")
pytest.importorskip("sklearn")

from experiments.benchmarks.measuring import online
from experiments.benchmarks.reporting import summary
from experiments.runner import cli


@pytest.fixture
def a_few(monkeypatch):
    """Two rows of each: the quick form of all of them takes a minute and a half."""
    some = {name: online.streamed()[name] for name in ("windowed", "rflo")}
    monkeypatch.setattr(online, "streamed", lambda: some)
    monkeypatch.setattr(online, "COSTS", {name: online.COSTS[name] for name in ("snap", "diagonal")})
    monkeypatch.setattr(online, "_DIAGONAL", (1, 2))


@pytest.mark.usefixtures("a_few")
def test_the_quick_form_runs_and_its_sizes_are_those_asked_for(tmp_path, capsys):
    flags = ["--quick", "--what", "estimators", "--estimators-size", "6", "--stream", "3000"]
    assert cli.main(["bench", *flags, "--out", str(tmp_path)]) == 0
    found = json.loads((tmp_path / "result.json").read_text())["estimators"]
    rows = {(row["what"], row["name"]): row for row in found["costs"]}
    assert set(rows) == {
        ("snap, sparse GRU", "snap(order=1)"),
        ("snap, sparse GRU", "rtrl"),
        ("rtrl, diagonal", "n = 6"),
        ("rtrl, diagonal", "n = 12"),
    }
    # W_x, W_h and two biases of a GRU with d = n = 12; W, u and b of a diagonal cell with d = n = 6.
    assert rows["snap, sparse GRU", "rtrl"]["parameters"] == 3 * 12 * (12 + 12 + 2)
    assert rows["rtrl, diagonal", "n = 6"]["parameters"] == 6 * 6 + 6 + 6
    assert all(row["rounds"] >= 3 and row["median_ms"] > 0 for row in found["costs"])
    assert [(row["estimator"], row["steps"]) for row in found["streams"]] == [("windowed", 3000), ("rflo", 3000)]
    assert all(min(row["first"], row["peak"]) > 2**20 for row in found["streams"])
    capsys.readouterr()
    assert cli.main(["bench", "--markdown", str(tmp_path / "result.json")]) == 0
    assert "| rflo | 3,000 |" in capsys.readouterr().out


def test_the_marks_can_be_missed_and_are_of_the_sizes_by_default():
    fast, slow = np.full(3, 1.0), np.full(3, 5.0)
    costs = [
        online.Costs("uoro, GRU", 64, {"uoro": slow, "forward step": fast, "objective": slow}, {}),
        online.Costs("snap, sparse GRU", 128, {"snap(order=1)": fast, "rtrl": slow}, {}),
        online.Costs("rtrl, GRU", 64, {"rtrl": slow, "c a": fast}, {}),
        online.Costs("rtrl, diagonal", 64, {"a": fast, "b": slow}, {"a": 10, "b": 20}),
    ]
    streams = [online.Stream("uoro", 10**6, 1.0, 0, 2**20), online.Stream("rtrl", 10**6, 1.0, 0, 2**23)]
    marks = summary.online(costs, streams)
    assert [mark.met for mark in marks] == [False, True, False, False, True, False]
    assert marks[3].measured == f"{np.log2(5):.2f}"
    small = [row._replace(size=8) for row in costs]
    assert summary.online(small, [streams[1]._replace(steps=4000)]) == []


def test_every_estimator_of_a_stream_is_timed_alone_and_none_is_left_out():
    import jaxbptt as jb

    needs_more = {"compare", "from_objective"}  # no estimator of a stream
    made = {name.split("(")[0].split(",")[0] for name in online.streamed()}
    assert made == {name for name in jb.estimators.__all__ if name.islower()} - needs_more
