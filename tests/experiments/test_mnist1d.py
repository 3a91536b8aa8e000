"""MNIST-1D: what the package makes, how it is batched, the verdict, and a training that is cut off."""

import json
import random

import jax
import numpy as np
import pytest

pytest.importorskip("tyro")
pytest.importorskip("matplotlib")
pytest.importorskip("rich")
pytest.importorskip("mnist1d")
pytest.importorskip("orbax.checkpoint")

from experiments.kit import options
from experiments.runner import cli
from experiments.studies.mnist1d import study as mnist1d
from experiments.studies.mnist1d.study import Config

TINY = ["run", "mnist1d", "--quick", "--epochs=2", "--hidden-size=3", "--batch-size=400", "--out"]


def test_the_signals_are_the_published_ones_and_global_generators_are_left_as_they_were():
    np.random.seed(7)
    random.seed(7)
    expected = np.random.random(3), random.random()
    np.random.seed(7)
    random.seed(7)
    mnist1d.signals.cache_clear()
    found = mnist1d.signals(False)
    np.testing.assert_array_equal(np.random.random(3), expected[0])
    assert random.random() == expected[1]
    assert [part.shape for part in found] == [(40, 4000, 1), (4000,), (40, 1000, 1), (1000,)]
    labels = np.concatenate([found.train_labels, found.test_labels])
    np.testing.assert_array_equal(np.bincount(labels), 500)
    xs = np.concatenate([found.train_xs, found.test_xs], axis=1)
    assert float(xs.mean()) == pytest.approx(0, abs=1e-5)
    assert float(xs.std()) == pytest.approx(1, rel=1e-5)


def test_shuffled_signals_are_the_same_numbers_under_one_permutation_of_the_steps():
    ordered, shuffled = mnist1d.signals(False), mnist1d.signals(True)
    np.testing.assert_array_equal(ordered.train_labels, shuffled.train_labels)
    columns = {ordered.test_xs[t].tobytes(): t for t in range(40)}
    permutation = [columns[shuffled.test_xs[t].tobytes()] for t in range(40)]
    assert sorted(permutation) == list(range(40))
    assert permutation != sorted(permutation)
    np.testing.assert_array_equal(shuffled.train_xs, ordered.train_xs[permutation])


def test_every_seed_sees_every_signal_once_a_pass_in_an_order_of_its_own():
    data = mnist1d.signals(False)
    at_step = mnist1d.batches(Config(seeds=2, batch_size=400), data)
    rows = {data.train_xs[:, k, 0].tobytes(): k for k in range(4000)}
    seen = np.empty((2, 4000), int)
    for k in range(10):
        xs, ys, _, mask, _ = at_step(k)
        assert xs.shape == (40, 2, 400, 1)
        assert mask[-1].all()
        assert not mask[:-1].any()
        for s in range(2):
            chosen = [rows[xs[:, s, b, 0].tobytes()] for b in range(400)]
            seen[s, 400 * k : 400 * (k + 1)] = chosen
            np.testing.assert_array_equal(ys[-1, s], data.train_labels[chosen])
    assert all(len(set(row)) == 4000 for row in seen)
    assert (seen[0] != seen[1]).any()
    np.testing.assert_array_equal(at_step(3).xs, at_step(3).xs)
    assert (at_step(3).xs != at_step(13).xs).any()


@pytest.mark.parametrize(
    ("means", "reasons"),
    [
        ((0.9, 0.6), []),
        ((0.84, 0.6), ["in order the accuracy is 84.0%, below 85%"]),
        ((0.9, 0.9), ["shuffled it is 90.0%, not lower"]),
        ((np.nan, np.nan), ["in order the accuracy is nan%, below 85%", "shuffled it is nan%, not lower"]),
    ],
)
def test_the_verdict(means, reasons):
    found = mnist1d.failures(dict(zip(mnist1d.ORDERS, means, strict=True)))
    assert [reason for reason, holds in found.items() if holds] == reasons


@pytest.mark.parametrize(
    ("flags", "complaint"),
    [
        ({"seeds": 0}, "`--seeds` must be at least 1: got 0"),
        ({"learning_rate": 0.0}, "`--learning-rate` must be above 0: got 0.0"),
        ({"weight_decay": -1.0}, "`--weight-decay` must be at least 0: got -1.0"),
        ({"devices": 0}, "`--devices` must be at least 1: got 0"),
    ],
)
def test_flags_that_make_no_sense_are_refused(flags, complaint):
    with pytest.raises(options.BadInputError, match=complaint):
        Config(**flags)


def test_a_batch_larger_than_the_data_is_refused(tmp_path, capsys):
    assert cli.main(["run", "mnist1d", "--batch-size=4001", "--out", str(tmp_path)]) == 2
    assert "`--batch-size` must be at most 4000: got 4001" in capsys.readouterr().err


def test_a_quick_run_learns(tmp_path):
    assert cli.main(["run", "mnist1d", "--quick", "--out", str(tmp_path)]) == 0
    found = json.loads((tmp_path / "result.json").read_text())
    assert found["published"] == mnist1d.PUBLISHED
    assert "a quick run, in which in order the accuracy is" in found["verdict"]
    for order in mnist1d.ORDERS:
        assert found["test_accuracy"][order]["mean"] > 0.2  # chance is 0.1
        assert len(found["test_accuracy"][order]["seeds"]) == 2
        assert found["curves"][order]["epoch"] == [1, 2, 3, 4]
    assert (tmp_path / "mnist1d.png").read_bytes().startswith(b"\x89PNG")


def test_accuracies_count_the_answers_at_the_last_step():
    theta = mnist1d.over_seeds.init(mnist1d.MODEL, 0, 3, input_size=1, hidden_size=4, output_size=10)
    xs, labels = mnist1d.signals(False)[2:]
    found = mnist1d.accuracies(theta, xs[:, :50], labels[:50])
    for s in range(3):
        y_hat_T = mnist1d.MODEL.apply(jax.tree.map(lambda leaf, s=s: leaf[s], theta), xs[:, :50])[-1]
        assert float(found[s]) == pytest.approx(np.mean(np.argmax(y_hat_T, axis=-1) == labels[:50]))
