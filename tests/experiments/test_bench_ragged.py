"""Sequences in the benchmark: who is timed beside whom, and marks that can be missed."""

import json

import numpy as np
import pytest

pytest.importorskip("tyro")
pytest.importorskip("matplotlib")
pytest.importorskip("rich")
pytest.importorskip("sklearn")

import itertools

from experiments.benchmarks.measuring import online, ragged
from experiments.benchmarks.reporting import summary
from experiments.runner import cli


def test_the_quick_form_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(ragged, "_STEPS", 24)
    flags = ["--quick", "--what", "sequences", "--sequences-size", "3", "--out", str(tmp_path)]
    assert cli.main(["bench", *flags]) == 0
    found = json.loads((tmp_path / "result.json").read_text())["sequences"]
    names = {row["what"]: [] for row in found}
    for row in found:
        names[row["what"]].append(row["name"])
        assert row["size"] == 3
        assert row["median_ms"] > 0
    assert names["lengths"] == ["with lengths", "without"]
    assert names["half of the steps"] == ["T/2 on average", "all of T"]
    assert names["three layers"] == ["layers", "stacked"]
    assert names["two directions"][0] == "jaxbptt"
    capsys.readouterr()
    assert cli.main(["bench", "--markdown", str(tmp_path / "result.json")]) == 0
    assert "| three layers, n = 3 | layers |" in capsys.readouterr().out


def test_batches_hold_half_of_the_steps_in_the_mean():
    each = [np.asarray(batch) for batch in ragged._batches(0)]
    assert {len(batch) for batch in each} == {32}
    assert 0.45 < np.concatenate(each).mean() / 256 < 0.55
    assert all(before.max() <= after.min() for before, after in itertools.pairwise(each))


def test_the_marks_can_be_missed():
    fast, slow = np.full(3, 1.0), np.full(3, 2.0)
    rows = [
        online.Costs("lengths", 128, {"with lengths": slow, "without": fast}, {}),
        online.Costs("half of the steps", 128, {"T/2 on average": fast, "all of T": slow}, {}),
        online.Costs("three layers", 128, {"layers": slow, "stacked": fast}, {}),
        online.Costs("two directions", 128, {"jaxbptt": slow}, {}),
    ]
    assert [mark.met for mark in summary.ragged(rows)] == [False, True, False]
    assert summary.ragged([row._replace(size=3) for row in rows]) == []
