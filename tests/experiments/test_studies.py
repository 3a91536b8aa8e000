import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

pytest.importorskip("tyro")
pytest.importorskip("matplotlib")
pytest.importorskip("rich")
pytest.importorskip("sklearn")

import jaxbptt as jb
from experiments.kit import lags, last_step
from experiments.runner import cli
from experiments.studies.digits import task as data
from experiments.studies.vanishing_exploding import study as vanishing_exploding
from experiments.studies.vanishing_exploding.study import Config
from experiments.study import silent

# the shapes of the small run in test_cli.py: compiled once
TINY = {**vanishing_exploding.STUDY.quick, "hidden_size": 5, "steps": 12, "non_normal_steps": 60}


def quick(study, folder, *flags):
    assert cli.main(["run", study, "--quick", *flags, "--out", str(folder)]) == 0
    return json.loads((folder / "result.json").read_text())


def assert_figures(folder, names):
    for name in names:
        content = (folder / f"{name}.png").read_bytes()
        assert content.startswith(b"\x89PNG")
        assert len(content) > 20_000


def test_digits_learns_and_its_gradient_is_right(tmp_path, capsys):
    found = quick("digits", tmp_path, "--epochs", "8", "--rounds", "2")
    assert_figures(tmp_path, ("curves", "gradient_by_step"))
    assert found["test_accuracy"] > 0.4  # chance is 0.1
    assert found["test_images"] == 360
    assert found["curves"]["train_loss"][-1] < 0.6 * found["curves"]["train_loss"][0]
    assert found["curves"]["epoch"][-1] == 8
    for moment in ("initial", "trained"):
        errors = found["gradient_errors"][moment]
        leaves = {"theta.h.W_x", "theta.h.W_h", "theta.h.b", "theta.o.W_o", "theta.o.b", "xs", "h_0.h", "h_0.c"}
        assert errors.keys() == leaves
        assert 0 < max(error["jax_grad"] for error in errors.values()) < 1e-10  # two paths ran
        assert max(error["differences"] - error["uncertainty"] for error in errors.values()) < 1e-7
        by_step = found["median_delta_norm_by_step"][moment]
        assert len(by_step["h"]) == 64
        assert min(by_step["h"]) > 0
        assert by_step["c"][-1] == 0  # nothing reads c_T
    for rate in found["timing"]["steps_per_second"].values():
        assert 0 < rate["low"] <= rate["median"] <= rate["high"]
    accuracy = found["test_accuracy"]
    assert ("the claim holds" in found["verdict"]) == (accuracy >= 0.95)
    out = capsys.readouterr().out
    assert f"{accuracy:.2%} of 360" in out
    assert f"verdict: {found['verdict']}" in out


def test_vanishing_exploding_is_reproduced(tmp_path, capsys):
    found = quick("vanishing_exploding", tmp_path)
    assert_figures(tmp_path, ("vanishing_exploding",))
    assert "in which the claim holds" in found["verdict"]
    assert found["linear"]["max_relative_deviation_of_norms"] < 1e-10
    assert found["linear"]["max_relative_deviation_of_contributions"] < 1e-10
    assert found["max_relative_error_of_sum_over_lags"] < 1e-10
    assert found["bound_violations"] == {"tanh": 0, "relu": 0, "sigmoid": 0}
    assert found["non_normal"]["peak_gain"] > 1 > found["non_normal"]["gain_at_largest_lag"]
    assert found["non_normal"]["relative_deviation_from_exact_at_peak"] < 1e-8
    assert found["by_lag"]["linear"]["1.5"]["norms"]["60"] == pytest.approx(1.5**60, rel=1e-10)
    assert jnp.zeros(()).astype(float).dtype == jnp.float32  # the setting is as it was


def test_the_verdict_says_what_failed():
    config = Config(**TINY, strength=0.0)
    found = vanishing_exploding.run(config, silent).numbers
    assert found["verdict"] == "not reproduced: the non-normal W_h never gains more than 0.5"


def test_the_verdict_notices_a_recurrence_that_is_not_orthogonal(monkeypatch):
    monkeypatch.setattr(jb.initializers, "orthogonal", lambda rho: jb.initializers.spectral_radius(rho))
    config = Config(**TINY)
    found = vanishing_exploding.run(config, silent).numbers
    assert found["verdict"].startswith("not reproduced: ‖∂h_t/∂h_k‖ is off ρ^(t-k) by")


def test_norms_and_contributions_are_those_of_a_python_loop():
    with jax.enable_x64(True):
        keys = jax.random.split(jax.random.key(0), 4)
        cell = jb.cells.elman()
        theta_h = cell.init(keys[0], 2, 3, jnp.float64)
        burn_in_xs = jax.random.normal(keys[1], (2, 1, 2), jnp.float64)
        xs = jax.random.normal(keys[2], (4, 1, 2), jnp.float64)
        y = jax.random.normal(keys[3], (1, 3), jnp.float64)
        measured = lags.measure(cell, theta_h, burn_in_xs, xs, y)
    W_x, W_h, b = map(np.asarray, theta_h)
    h, states = np.zeros(3), []
    for x_t in np.concatenate([burn_in_xs, xs])[:, 0]:
        h = np.tanh(W_x @ x_t + W_h @ h + b)
        states.append(h)
    product, norms = np.eye(3), []
    for h_t in states[2:]:
        product = np.diag(1 - h_t**2) @ W_h @ product
        norms.append(np.linalg.svd(product)[1][0])
    np.testing.assert_allclose(measured.norms[0], norms, rtol=1e-12)
    delta = delta_T = states[-1] - np.asarray(y)[0]
    shares = []
    for h_t in reversed(states[2:]):
        z_bar = (1 - h_t**2) * delta
        shares.append(np.linalg.norm(z_bar) / np.linalg.norm(delta_T))
        delta = W_h.T @ z_bar
    np.testing.assert_allclose(measured.contributions[0], shares, rtol=1e-12)


@pytest.mark.parametrize("cell", [jb.cells.lstm(), jb.cells.elman()], ids=["lstm", "elman"])
def test_delta_norms_are_the_derivatives_with_respect_to_each_state(cell):
    model = jb.rnn(cell, jb.readouts.linear())
    theta = model.init(jax.random.key(0), input_size=1, hidden_size=3, output_size=data.CLASSES)
    xs = jax.random.normal(jax.random.key(1), (3, 2, 1))
    labels = jnp.array([3, 7])
    norms = last_step.delta_norms(model, theta, xs, labels)
    for t in range(3):
        h_t, _ = jb.unroll(cell, theta.h, xs[: t + 1], model.initial_state(theta, (2,)))

        def F(h_t, t=t):
            for x_t in xs[t + 1 :]:
                h_t = cell.apply(theta.h, x_t, h_t)
            y_hat_T = model.readout.apply(theta.o, cell.output(h_t))
            return -jnp.sum(jax.nn.log_softmax(y_hat_T)[jnp.arange(2), labels])

        delta_t = jax.grad(F)(h_t)
        wanted = delta_t._asdict() if hasattr(delta_t, "_asdict") else {"h": delta_t}
        for part, value in wanted.items():
            np.testing.assert_allclose(norms[part][t], jnp.linalg.norm(value, axis=-1), rtol=1e-5)


def test_the_split_is_stratified_disjoint_and_fixed_by_the_seed():
    split, again, other = data.digits(0), data.digits(0), data.digits(1)
    for a, b in zip(split, again, strict=True):
        np.testing.assert_array_equal(a, b)
    assert not np.array_equal(split.test_labels, other.test_labels)
    assert (split.train_images.shape, split.test_images.shape) == ((1437, 64), (360, 64))
    assert np.all(np.abs(np.bincount(split.test_labels) - 36) <= 1)
    train = {image.tobytes() for image in split.train_images}
    assert len(train | {image.tobytes() for image in split.test_images}) == 1797
    assert split.train_images.max() == 1


def test_shifts_move_an_image_by_at_most_their_reach():
    image = np.arange(64, dtype=np.float32).reshape(1, 8, 8) + 1
    seen = set()
    for seed in range(60):
        moved = data.shifted(image.reshape(1, 64), np.random.default_rng(seed), 1).reshape(8, 8)
        for dy in (-1, 0, 1):
            for dx in (-1, 0, 1):
                if np.array_equal(moved[1:-1, 1:-1], image[0, 1 + dy : 7 + dy, 1 + dx : 7 + dx]):
                    seen.add((dy, dx))
                    expected = 0 if dy == -1 else image[0, dy, 3 + dx]
                    assert moved[0, 3] == expected
    assert len(seen) == 9
    np.testing.assert_array_equal(data.shifted(image.reshape(1, 64), np.random.default_rng(0), 0), image.reshape(1, 64))


def test_pixels_come_in_reading_order():
    images = np.arange(128, dtype=np.float32).reshape(2, 64)
    assert data.pixel_by_pixel(images).shape == (64, 2, 1)
    np.testing.assert_array_equal(data.pixel_by_pixel(images)[:, 1, 0], images[1])


def test_frobenius_norms_do_not_underflow():
    assert lags.frobenius(np.full((1, 2, 2), 1e-250))[0] == pytest.approx(2e-250)
    assert lags.frobenius(np.zeros((1, 2, 2)))[0] == 0
