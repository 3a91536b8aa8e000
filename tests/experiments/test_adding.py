import json

import numpy as np
import pytest

pytest.importorskip("tyro")
pytest.importorskip("matplotlib")
pytest.importorskip("rich")
pytest.importorskip("sklearn")
pytest.importorskip("orbax.checkpoint")

from experiments.kit import memory
from experiments.kit.options import BadInputError
from experiments.runner import cli
from experiments.studies import adding

TINY = ["run", "adding", "--quick", "--seeds=2", "--length=6", "--chrono-lengths", "5", "--hidden-size=3"]
TINY += [
    "--irnn-hidden-size=3",
    "--updates=8",
    "--every=2",
    "--watch-size=8",
    "--test-size=8",
    "--batch-size=4",
    "--seed=1",
    "--out",
]


def result(folder):
    return json.loads((folder / "result.json").read_text())


@pytest.mark.parametrize(("T", "batch_shape"), [(2, (40,)), (7, (30,)), (12, (5, 6))])
def test_the_target_is_the_sum_of_one_number_of_each_half(T, batch_shape):
    xs, ys, h_0, mask, _ = memory.adding(np.random.default_rng(T), T, batch_shape)
    assert (xs.shape, ys.shape, mask.shape, h_0) == (
        (T, *batch_shape, 2),
        (T, *batch_shape, 1),
        (T, *batch_shape),
        None,
    )
    assert (xs.dtype, ys.dtype) == (np.float32, np.float32)
    where = set()
    for index in np.ndindex(*batch_shape):
        total, marked = 0.0, []
        for t in range(T):
            number, mark = xs[(t, *index)]
            assert 0 <= number < 1
            assert mark in (0, 1)
            assert mask[(t, *index)] == (t == T - 1)
            if mark:
                total += number
                marked.append(t)
        first, second = marked
        assert first < T // 2 <= second
        where.update(marked)
        assert ys[(-1, *index, 0)] == pytest.approx(total, rel=1e-6)
    assert where == set(range(T))


def test_without_memory_the_error_is_a_sixth():
    y = memory.adding(np.random.default_rng(0), 4, (200_000,)).ys[-1, :, 0]
    assert np.mean((y - 1) ** 2) == pytest.approx(memory.ADDING_FLOOR, rel=0.01)
    assert abs(memory.ADDING_FLOOR - 2 * (1 / 3 - 1 / 4)) < 1e-15  # E u² - (E u)², twice


GOOD = {"tanh": np.array([0.17, 0.16]), "irnn": np.array([0.002, 0.015]), "gru": np.array([1e-3, 1e-3])}


@pytest.mark.parametrize(
    ("errors", "ratios", "wanted"),
    [
        ({}, {100: 1.0, 200: 2.0}, "reproduced"),
        ({"gru": [0.0, 0.02]}, {200: 3.0}, "not reproduced: the GRU's error is 0.01"),
        ({"irnn": [0.17, 0.17]}, {200: 3.0}, "not reproduced: the IRNN's error is 0.17"),
        ({"tanh": [0.1, 0.1]}, {200: 3.0}, "not reproduced: the tanh network's error is 0.1"),
        (
            {"gru": [np.nan, 0.0]},
            {100: 3.0, 200: 1.5},
            "not reproduced: the GRU's error is nan; with chrono initialisation the LSTM is 1.5 times as fast at"
            " T = 200",
        ),
        (
            {},
            {100: 3.0, 200: np.nan},
            "not reproduced: with chrono initialisation the LSTM does not get to 0.02 at T = 200",
        ),
    ],
)
def test_the_verdict_follows_from_the_numbers(errors, ratios, wanted):
    assert adding.judge(GOOD | {name: np.array(values) for name, values in errors.items()}, ratios) == wanted


def test_an_lstm_that_never_gets_there_counts_with_its_updates_and_chrono_does_not():
    never, soon = np.array([np.inf] * 3), np.array([100.0, 300.0, 200.0])
    assert adding.ratio(never, soon, 1000) == 5
    assert np.isnan(adding.ratio(soon, never, 1000))
    assert np.isnan(adding.ratio(never, never, 1000))


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"seeds": 0}, "`--seeds` must be at least 1: got 0"),
        ({"length": 1}, "`--length` must be at least 2: got 1"),
        ({"chrono_lengths": ()}, "`--chrono-lengths` must be above 0: got nothing"),
        ({"chrono_lengths": (50, 2)}, "`--chrono-lengths` must be at least 3: got 2"),
        ({"updates": 49}, "`--updates` must be at least 50: got 49"),
        ({"irnn_learning_rate": 0.0}, "`--irnn-learning-rate` must be above 0: got 0.0"),
        ({"devices": 0}, "`--devices` must be at least 1: got 0"),
    ],
)
def test_flags_that_make_no_sense_are_refused(flags, message):
    with pytest.raises(BadInputError) as refused:
        adding.Config(**flags)
    assert str(refused.value) == message


def test_a_quick_run_learns_and_writes_what_it_found(tmp_path, capsys):
    assert cli.main(["run", "adding", "--quick", "--out", str(tmp_path)]) == 0
    found = result(tmp_path)
    assert found["published"] == adding.PUBLISHED
    assert found["trainings"].keys() == {"tanh", "irnn", "gru", "lstm_10", "chrono_10", "lstm_20", "chrono_20"}
    for name, row in found["trainings"].items():
        assert len(row["error"]) == 3
        assert row["mean_error"] == pytest.approx(np.mean(row["error"]))
        assert row["error"] == pytest.approx(found["curves"][name]["error"][-1], rel=0.5)  # on other sequences
        assert row["error"] != found["curves"][name]["error"][-1]
        assert row["updates"] == found["curves"][name]["updates"][-1] == 200
    assert found["trainings"]["gru"]["mean_error"] < 0.6 * found["floor"]
    assert "in which the GRU's error is " in found["verdict"]  # 200 updates are too few
    assert (tmp_path / "adding.png").read_bytes().startswith(b"\x89PNG")
    assert "verdict: not judged" in capsys.readouterr().out
