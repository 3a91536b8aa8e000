"""Influence balancing: thresholds and walks beside loops of NumPy over the powers of A, and a verdict that can fail."""

from typing import Any

import numpy as np
import pytest

pytest.importorskip("tyro")
pytest.importorskip("matplotlib")
pytest.importorskip("rich")

from experiments.kit.options import BadInputError
from experiments.studies import influence_balancing as study
from experiments.study import silent

A = 0.5 * np.eye(23) + 0.5 * np.eye(23, k=1)
SIGNS = np.array([1.0] * 10 + [-1.0] * 13)


def test_directions_are_sums_over_the_powers_of_A(x64):
    """At rest s[1] = -6 θ, so L' = -6 θ - 1 = -4 at θ = ½; times ds[1]/dθ, from lag to lag."""
    np.testing.assert_allclose(np.linalg.solve(np.eye(23) - A, SIGNS)[0], -6)
    powers, term = [], SIGNS
    for _ in range(128):
        powers.append(term[0])
        term = A @ term
    end = -4 * np.cumsum(powers)
    mean = np.cumsum(end) / np.arange(1, 129)
    found = study.directions(0.5)
    np.testing.assert_allclose(found["end"], end, rtol=1e-9, atol=1e-10)
    np.testing.assert_allclose(found["mean"], mean, rtol=1e-9, atol=1e-10)
    assert end[39] < 0 < end[40]
    assert mean[108] < 0 < mean[109]


def test_rtrl_walks_as_a_loop_does(x64):
    theta, s, a, thetas = 0.5, np.ones(23), np.zeros(23), []
    for _ in range(400):
        s, a = A @ s + theta * SIGNS, A @ a + SIGNS
        theta -= 1e-4 * (s[0] - 1) * a[0]
        thetas.append(theta)
    config = study.Config(steps=400, windows=(1,), seeds=1)
    found = study.walks(config, silent)["RTRL"]
    np.testing.assert_allclose(found, thetas, rtol=1e-10)
    assert abs(thetas[-1] + 1 / 6) < 0.1


def test_a_quick_run_shows_the_claim(quick):
    found, folder = quick("influence_balancing")
    assert "in which the claim holds" in found["verdict"]
    assert found["largest_K_with_the_wrong_direction"] == {"end": 40, "mean": 109}
    assert len(found["theta_at_the_end"]["UORO"]) == 2
    assert (folder / "influence_balancing.png").read_bytes().startswith(b"\x89PNG")
    assert found["published"] == study.PUBLISHED


def test_the_verdict_can_fail():
    good = {"RTRL": [-0.1667], "UORO": [-0.17, -0.16], "truncated, K = 1, end": [9.0]}
    assert study.judge({"end": 40, "mean": 109}, good, 0.5) == "reproduced"
    bad = {"RTRL": [float("nan")], "UORO": [-0.17, -0.15], "truncated, K = 1, end": [0.4]}
    said = study.judge({"end": 41, "mean": 109}, bad, 0.5)
    for reason in (
        "the end of a window points the wrong way up to K = 41, not 40",
        "RTRL ends nan from -1/6",
        "UORO ends 0.017 from -1/6",
        "K = 1, end: ends at 0.400, nearer to -1/6",
    ):
        assert reason in said


def test_flags_that_make_no_sense_are_refused():
    rows: list[tuple[dict[str, Any], str]] = [
        ({"windows": (1, 110)}, "`--windows` must lie between 0 and 110: got 110"),
        ({"steps": 50, "windows": (100,)}, "`--steps` must be at least 100: got 50"),
        ({"uoro_learning_rate": 0.0}, "`--uoro-learning-rate` must be above 0: got 0.0"),
    ]
    for flags, message in rows:
        with pytest.raises(BadInputError) as refused:
            study.Config(**flags)
        assert str(refused.value) == message
