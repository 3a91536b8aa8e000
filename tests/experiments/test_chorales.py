"""The study of the chorales: its noise on the weights, its verdict, and its quick form from end to end."""

import contextlib
import json
import math
import signal

import jax
import jax.numpy as jnp
import numpy as np
import pytest

pytest.importorskip("tyro")
pytest.importorskip("matplotlib")
pytest.importorskip("rich")
pytest.importorskip("sklearn")
pytest.importorskip("orbax.checkpoint")
pytest.importorskip("scipy")

import jaxbptt as jb
from experiments.runner import cli, terminal
from experiments.studies.chorales import music
from experiments.studies.chorales import study as chorales

QUICK = ["run", "chorales", "--quick", "--out"]


def numbers(folder):
    return json.loads((folder / "result.json").read_text())


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("chorales")
    with jax.enable_x64(False), jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        assert cli.main([*QUICK, str(folder)]) == 0
    return folder


def test_the_noise_is_on_every_weight_anew_for_each_key():
    def moved(theta, state, xs, ys, *, mask=None, lengths=None, key=None):
        return jb.Estimate(0.0, theta, ()), state

    estimator = chorales.noisy(jb.GradientEstimator(lambda theta, h_0=None: (), moved), 0.25)
    theta = jb.Theta(h={"a": jnp.ones((70, 60)), "b": -jnp.ones(900)}, o=jnp.zeros((40, 30)))
    first, again, other = (estimator.update(theta, (), None, None, key=jax.random.key(k))[0].grads for k in (0, 0, 1))
    noise = jax.tree.map(lambda a, b: np.asarray(a - b), first, theta)
    for leaf, same, another, still in zip(*map(jax.tree.leaves, (first, again, other, noise)), strict=True):
        np.testing.assert_array_equal(leaf, same)
        assert not np.any(leaf == another)
        assert still.std() == pytest.approx(0.25, rel=5 / math.sqrt(2 * still.size))
        assert abs(still.mean()) < 5 * 0.25 / math.sqrt(still.size)
    a, b = noise.h["a"].ravel()[:900], noise.h["b"]
    assert abs(np.corrcoef(a, b)[0, 1]) < 5 / 30


def test_the_verdict_names_each_cell_that_is_too_high():
    assert chorales.judged({"elman": 9.3, "gru": 8.8, "lstm": 8.8}) == "reproduced"
    assert (
        chorales.judged({"elman": 9.31, "gru": 8.8, "lstm": math.nan})
        == "not reproduced: tanh needs 9.31 nats a step, more than 9.3; LSTM needs nan nats a step, more than 8.8"
    )


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--seeds", "0"], "`--seeds` must be at least 1: got 0"),
        (["--patience", "0"], "`--patience` must be at least 1: got 0"),
        (["--weight-noise", "-1"], "`--weight-noise` must be at least 0: got -1.0"),
        (["--learning-rate", "0"], "`--learning-rate` must be above 0: got 0.0"),
        (["--clip-norm", "nan"], "`--clip-norm` must be above 0: got nan"),
        (["--batch-size", "19"], "`--batch-size` must be at most 18: got 19"),
    ],
)
def test_bad_flags_are_one_clear_line(flags, message, tmp_path, capsys):
    assert cli.main([*QUICK, str(tmp_path), *flags]) == 2
    assert capsys.readouterr().err.lstrip() == f"error: {message}\n"


def test_a_quick_run_writes_what_it_found(undisturbed, rolls, capsys):
    found = numbers(undisturbed)
    assert (undisturbed / "chorales.png").read_bytes().startswith(b"\x89PNG")
    assert found["pieces"] == {"train": 18, "valid": 3, "test": 4}
    assert found["steps_predicted_in_test"] == sum(len(piece) - 1 for piece in rolls.test)
    floors = music.floors(rolls.train, rolls.test)
    assert found["floors"] == {"unigram": floors.unigram, "markov": floors.markov}
    assert found["published"]["NLL of Markov"]["value"] == round(floors.markov, 4)
    assert found["published"]["NLL of GRU, 46 units"]["value"] == 8.54
    assert found["weights"] == {
        "elman": 88 * 100 + 100 * 100 + 100 + 88 * 101,
        "gru": 3 * (46 * 88 + 46 * 46 + 2 * 46) + 88 * 47,
        "lstm": 4 * (36 * 88 + 36 * 36 + 36) + 88 * 37,
    }
    for cell, tests in found["test_nll"].items():
        lines = (undisturbed / f"{cell}_0" / "metrics.jsonl").read_text().splitlines()
        valid = [json.loads(line)["validation_loss"] for line in lines]
        assert len(valid) == 4
        assert found["validation_nll"][cell] == [min(valid)]
        assert found["best_epoch"][cell] == [1 + valid.index(min(valid))]
        assert tests["seeds"] == [tests["mean"]]
        assert 20 < tests["mean"] < 88 * math.log(2) + 5  # random pieces: about 88 times the entropy of 0.1
    assert "a quick run, in which tanh needs " in found["verdict"]


def test_a_training_that_was_cut_off_ends_with_the_same_numbers(undisturbed, tmp_path, monkeypatch, capsys):
    @contextlib.contextmanager
    def interrupting():
        def report(stage, done, total, note=""):
            if stage.startswith("gru_0") and done == 2:
                signal.raise_signal(signal.SIGINT)

        yield report

    with monkeypatch.context() as patch:
        patch.setattr(terminal, "progress", interrupting)
        assert cli.main([*QUICK, str(tmp_path)]) == 130
    assert "interrupted after step 2, which is saved" in capsys.readouterr().err
    assert cli.main([*QUICK, str(tmp_path), "--resume"]) == 0
    assert numbers(tmp_path) == numbers(undisturbed)
    for cell in chorales.CELLS:
        kept = [folder / f"{cell}_0" / "metrics.jsonl" for folder in (tmp_path, undisturbed)]
        assert kept[0].read_bytes() == kept[1].read_bytes()
        assert not (tmp_path / f"{cell}_0" / "checkpoints").exists()
