"""The online Add task: its stream and plateaus beside counts, a verdict that can fail."""

import jax
import numpy as np
import pytest

pytest.importorskip("tyro")
pytest.importorskip("matplotlib")
pytest.importorskip("rich")

import itertools
from typing import Any

from experiments.kit.options import BadInputError
from experiments.studies import add_task as study


def test_the_stream_has_the_probabilities_and_the_plateaus_are_its_entropies():
    x, y = (np.asarray(leaf)[:, 0] for leaf in study.stream(jax.random.key(0), 40_000, 5, 9))
    x_1, x_2, late = x[4:-5], x[:-9], y[9:]
    given = {}
    for a, b in itertools.product((0, 1), repeat=2):
        of = late[(x_1 == a) & (x_2 == b)]
        given[a, b] = of.mean()
        assert abs(of.mean() - (0.5 + 0.5 * a - 0.25 * b)) < 4 * 0.5 / np.sqrt(len(of))

    def entropy(p):
        return -sum(q * np.log(q) for q in (p, 1 - p) if q)

    one = (entropy(given[0, 0] / 2 + given[0, 1] / 2) + entropy(given[1, 0] / 2 + given[1, 1] / 2)) / 2
    measured = [entropy(late.mean()), one, np.mean([entropy(p) for p in given.values()])]
    np.testing.assert_allclose(list(study.PLATEAUS.values()), measured, atol=0.01)
    np.testing.assert_allclose(list(study.PLATEAUS.values()), [0.6616, 0.5192, 0.4545], atol=5e-5)


def test_a_quick_run_gives_curves_and_cosines(quick):
    found, folder = quick("add_task")
    assert len(found["loss_at_the_end"]["UORO"]) == 2
    assert 0.4 < np.mean(found["loss_at_the_end"]["RTRL"]) < 0.75
    cosines = found["alignment"]
    assert all(abs(row[name] - 1) < 1e-5 for name, row in cosines.items())
    # Both are exact here but for what is older than the window.
    assert cosines["RTRL"]["window, 11"] > 0.9 > cosines["RTRL"]["window, 4"]
    assert abs(cosines["RTRL"]["UORO"] - cosines["UORO"]["RTRL"]) < 1e-6
    assert (folder / "add_task.png").read_bytes().startswith(b"\x89PNG")


def test_the_verdict_can_fail():
    assert study.judge({"RTRL": [0.46, 0.45], "UORO": [float("nan")], "window, 4": [0.66]}) == "reproduced"
    said = study.judge({"RTRL": [0.48, 0.47], "window, 4": [0.64]})
    assert "RTRL ends at 0.4750" in said
    assert "window, 4 ends at 0.6400" in said
    assert "RTRL ends at nan" in study.judge({"RTRL": [float("nan")], "window, 4": [0.66]})


def test_flags_that_make_no_sense_are_refused():
    rows: list[tuple[dict[str, Any], str]] = [
        ({"second": 5}, "`--second` must be at least 6: got 5"),
        ({"steps": 10}, "`--steps` must be at least 1000: got 10"),
    ]
    for flags, message in rows:
        with pytest.raises(BadInputError) as refused:
            study.Config(**flags)
        assert str(refused.value) == message
