"""Gradient flossing: task, network and objective against NumPy, the verdict, and a study that is cut off."""

import json
import math
import shlex

import jax
import jax.numpy as jnp
import numpy as np
import pytest

pytest.importorskip("tyro")
pytest.importorskip("matplotlib")
pytest.importorskip("rich")
pytest.importorskip("sklearn")
pytest.importorskip("orbax.checkpoint")

import jaxbptt as jb
from experiments.kit import options
from experiments.runner import cli
from experiments.studies.flossing import networks as flossing_net
from experiments.studies.flossing import study as flossing
from experiments.studies.flossing import task
from experiments.studies.flossing.study import Config

SMALL = {"hidden_size": 5, "exponents": 3, "delay": 2, "length": 9, "flossing_length": 12, "transient": 4, "seeds": 2}
TINY = shlex.split(
    "run flossing --quick --updates=12 --check-every=4 --flossing-steps=10 --hidden-size=5 --exponents=4 --delay=2"
    " --length=9 --flossing-length=12 --batch-size=4 --test-size=16"
)
TINY.append("--out")


@pytest.mark.parametrize(("length", "delay"), [(3, 1), (30, 7), (9, 4)])
def test_each_target_compares_two_bits_of_the_past(length, delay):
    xs, ys, mask = task.delayed_xor(np.random.default_rng(0), length, 500, delay)
    assert xs.shape == (length, 500, 1)
    for bits, targets, counts in zip(xs[:, :, 0].T, ys.T, mask.T, strict=True):
        for t in range(length):
            assert counts[t] == (t >= 2 * delay)
            assert targets[t] == (counts[t] and bits[t - delay] != bits[t - 2 * delay])
    assert np.mean(ys[mask]) == pytest.approx(0.5, abs=0.1)
    assert np.mean(xs) == pytest.approx(0.5, abs=0.05)


def small(config):
    theta = flossing.MODEL.init(
        jax.random.key(1), input_size=1, hidden_size=config.hidden_size, output_size=1, dtype=jnp.float64
    )
    return theta._replace(o=theta.o._replace(b=jnp.array([0.3])))


def logits(theta, bits):
    """ŷ_1 … ŷ_T for one sequence."""
    (W_x, W_h, b), (W_o, b_o) = jax.tree.map(np.asarray, theta)
    h, found = np.zeros(len(b)), []
    for bit in bits:
        h = W_h @ np.tanh(h) + W_x[:, 0] * bit + b
        found.append(float(W_o[0] @ h + b_o[0]))
    return np.array(found)


def test_the_objective_and_the_accuracy_are_those_of_a_loop():
    config = Config(**SMALL)
    xs, ys, mask = task.delayed_xor(np.random.default_rng(3), 9, 20, 2)
    with jax.enable_x64(True):
        theta = small(config)
        F = jb.objective(flossing.MODEL, flossing.loss)
        value = jax.jit(F)(theta, xs.astype(float), ys.astype(float), mask=mask)
        one = jax.tree.map(lambda leaf: jnp.stack([leaf, -leaf]), theta)
        accuracies = flossing.accuracies(one, xs.astype(float), ys, mask)
    found = np.stack([logits(theta, bits) for bits in xs[:, :, 0].T], axis=1)
    losses = np.log1p(np.exp(np.where(ys == 1, -found, found)))
    assert float(value) == pytest.approx(np.mean(losses[mask]), rel=1e-10)
    assert float(accuracies[0]) == pytest.approx(np.mean(((found > 0) == (ys == 1))[mask]))


def test_networks_start_with_gains_of_one():
    theta = flossing.MODEL.init(jax.random.key(0), input_size=1, hidden_size=200, output_size=1)
    assert float(np.std(theta.h.W_h)) == pytest.approx(1 / math.sqrt(200), rel=0.03)
    assert float(np.std(theta.h.W_x)) == pytest.approx(1, rel=0.15)
    assert float(np.std(theta.o.W_o)) == pytest.approx(1, rel=0.15)
    assert np.all((np.asarray(theta.h.b) >= 0) & (np.asarray(theta.h.b) <= 0.1))


def test_the_spectrum_adds_up_to_the_mean_log_determinant():
    config = Config(**SMALL)
    with jax.enable_x64(True):
        theta = small(config)
        theta_h = jax.tree.map(lambda leaf: jnp.stack([leaf, 0.7 * leaf]), theta.h)
        xs = np.random.default_rng(0).integers(0, 2, (40, 2, 1, 1)).astype(float)
        found = np.asarray(flossing.spectra(theta_h, jnp.asarray(xs), 10))
    for s in range(2):
        W_x, W_h, b = (np.asarray(leaf[s]) for leaf in theta_h)
        h, total = np.zeros(5), 0.0
        for t, x_t in enumerate(xs[:, s, 0, 0]):
            if t >= 10:
                total += math.log(abs(np.linalg.det(W_h * (1 - np.tanh(h) ** 2)))) / 30
            h = W_h @ np.tanh(h) + W_x[:, 0] * x_t + b
        assert np.sum(found[s]) == pytest.approx(total, rel=1e-9)


def test_flossing_moves_exponents_to_zero_and_leaves_the_readout_alone():
    config = Config(**SMALL, flossing_steps=60, learning_rate=0.01)
    drawn = flossing.over_seeds.init(flossing.MODEL, 0, 2, input_size=1, hidden_size=5, output_size=1)
    flossed, losses = flossing.floss(config, drawn, lambda *_: None)
    assert losses.shape == (60,)
    assert np.mean(losses[-5:]) < 0.3 * np.mean(losses[:5])
    np.testing.assert_array_equal(flossed.o.W_o, drawn.o.W_o)
    assert np.all(np.any(np.asarray(flossed.h.W_h != drawn.h.W_h), axis=(1, 2)))


def test_the_verdict_wants_the_flossed_to_learn_and_the_others_not_to():
    def reasons(unflossed, flossed):
        final = {"unflossed": np.array(unflossed), "flossed": np.array(flossed)}
        return [reason for reason, holds in flossing.failures(final).items() if holds]

    half = [0.5, 0.51, 0.49, 0.5, 0.5]
    assert not reasons(half, [0.99, 0.96, 0.97, 0.98, 0.5])
    assert reasons(half, [0.99, 0.95, 0.97, 0.98, 0.5]) == ["flossed, only 3 of 5 exceed 95%"]
    assert reasons([0.5, 0.5, 0.5, 0.5, 0.8], [1.0] * 5) == ["unflossed, the mean accuracy is 56%, not chance"]
    assert len(reasons([np.nan] * 5, [np.nan] * 5)) == 2


@pytest.mark.parametrize(
    ("flags", "complaint"),
    [
        ({"exponents": 81}, "`--hidden-size` must be at least 81: got 80"),
        ({"length": 40}, "`--length` must be at least 41: got 40"),
        ({"transient": 56}, "`--flossing-length` must be at least 57: got 56"),
        ({"transient": 15}, "`--qr-every` must divide `--transient`: got 2"),
        ({"delay": 0}, "`--delay` must be at least 1: got 0"),
        ({"seeds": 1}, "`--seeds` must be at least 2: got 1"),
        ({"clip_norm": -1.0}, "`--clip-norm` must be above 0: got -1.0"),
    ],
)
def test_flags_that_make_no_sense_are_refused(flags, complaint):
    with pytest.raises(options.BadInputError, match=complaint):
        Config(**flags)


def test_a_quick_run_shows_the_difference(tmp_path, monkeypatch):
    def spy(theta_h, xs, transient):
        for leaf in jax.tree.leaves(theta_h):  # a QR on two devices of a CPU can hang
            assert isinstance(leaf, np.ndarray) or len(leaf.devices()) == 1
        return flossing_net.spectra(theta_h, xs, transient)

    monkeypatch.setattr(flossing, "spectra", spy)
    assert cli.main(["run", "flossing", "--quick", "--out", str(tmp_path)]) == 0
    found = json.loads((tmp_path / "result.json").read_text())
    assert found["published"] == flossing.PUBLISHED
    assert (tmp_path / "flossing.png").read_bytes().startswith(b"\x89PNG")
    assert found["accuracy"]["flossed"]["mean"] > found["accuracy"]["unflossed"]["mean"] + 0.1
    assert found["mean_squared_exponent"]["last_step"] < 0.5 * found["mean_squared_exponent"]["first_step"]
    assert found["exponents"].keys() == {"unflossed, drawn", "unflossed, trained", "flossed", "flossed, trained"}
    assert found["verdict"].startswith("not judged: a quick run, in which ")
