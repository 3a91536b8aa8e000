"""Truncation bias: the unit's by a sum in NumPy, the line through a bias, and a verdict that can fail."""

import numpy as np
import pytest

pytest.importorskip("tyro")
pytest.importorskip("matplotlib")
pytest.importorskip("rich")
pytest.importorskip("sklearn")

from experiments.runner import cli
from experiments.studies import truncation_bias as study


def test_a_quick_run_measures_the_bias_of_the_sum_cut_at_a_lag(quick):
    found, folder = quick("truncation_bias")
    assert (folder / "truncation_bias.png").read_bytes().startswith(b"\x89PNG")
    assert found["published"] == study.PUBLISHED
    assert "in which the claim holds" in found["verdict"]
    shares = 0.5 ** np.arange(60)
    wanted = [np.sum(shares[K:]) / np.sum(shares) for K in range(1, 5)]
    np.testing.assert_allclose(found["units"]["0.5"], wanted, rtol=1e-12)
    (lstm,) = found["lstm"]
    assert all(later < before for before, later in zip(lstm["biases"], lstm["biases"][1:], strict=False))
    (one,) = found["adaptive"]
    assert one["bound"] <= 0.2
    assert one["bias"] < lstm["biases"][0]


def test_the_verdict_can_fail():
    units, rows = {"0.5": [0.5, 0.25]}, [{"rate": 0.8, "r2": 0.999}]
    adapted = [{"tolerance": 0.1, "bound": 0.09}]
    assert study.judge(units, rows, adapted) == "reproduced"
    assert study.judge({"0.5": [0.5, 0.26]}, rows, adapted) == "not reproduced: λ = 0.5 is off λ^K by 4.0e-02"
    assert "R² is 0.9800" in study.judge(units, [{"rate": 0.8, "r2": 0.98}], adapted)
    assert "does not fall" in study.judge(units, [{"rate": 1.01, "r2": 0.999}], adapted)
    assert "above the tolerance 0.1" in study.judge(units, rows, [{"tolerance": 0.1, "bound": float("nan")}])
    rate, r2 = study.line(np.array([1.0, 0.5, 0.5, 0.1]))
    assert (rate < 1, r2 < 0.95) == (True, True)


def test_flags_that_make_no_sense_are_refused(capsys):
    assert cli.main(["run", "truncation_bias", "--lags", "30", "--steps", "30"]) == 2
    assert capsys.readouterr().err == "error: `--steps` must be at least 31: got 30\n"
