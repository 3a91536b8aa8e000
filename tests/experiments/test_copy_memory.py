import json
import math

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
from experiments.kit import memory
from experiments.kit.options import BadInputError
from experiments.runner import cli
from experiments.studies.copy_memory import network as unitary
from experiments.studies.copy_memory import study as copy_memory

TINY = ["run", "copy_memory", "--quick", "--seeds=2", "--delays", "2", "--hidden-size=3", "--unitary-hidden-size=4"]
TINY += ["--updates=8", "--every=2", "--test-size=8", "--batch-size=4", "--seed=1", "--out"]


def result(folder):
    return json.loads((folder / "result.json").read_text())


@pytest.mark.parametrize(("delay", "batch_shape"), [(1, (5,)), (3, (2, 4)), (30, (3,))])
def test_what_was_shown_is_asked_for_after_the_delay(delay, batch_shape):
    xs, ys, *rest = memory.copying(np.random.default_rng(0), delay, batch_shape)
    assert rest == [None, None, None]
    assert (xs.shape, ys.shape) == ((delay + 20, *batch_shape, 10), (delay + 20, *batch_shape))
    assert (xs.dtype, ys.dtype) == (np.float32, np.int32)
    np.testing.assert_array_equal(np.sort(xs, axis=-1)[..., -2:], np.broadcast_to([0, 1], (*ys.shape, 2)))
    for index in np.ndindex(*batch_shape):
        shown = [list(xs[(t, *index)]).index(1) for t in range(delay + 20)]
        said = [int(ys[(t, *index)]) for t in range(delay + 20)]
        word = shown[:10]
        assert max(word) < 8
        assert shown[10:] == [8] * (delay - 1) + [9] + [8] * 10
        assert said == [8] * (delay + 10) + word


def test_all_symbols_are_shown_equally_often():
    ys = memory.copying(np.random.default_rng(0), 1, (4000,)).ys[-10:]
    counts = np.bincount(ys.ravel(), minlength=9)
    assert counts[8] == 0
    assert np.all(np.abs(counts[:8] - 5000) < 5 * math.sqrt(5000))


def test_the_line_is_the_loss_of_the_best_guess_without_memory():
    delay = 13
    ys = memory.copying(np.random.default_rng(1), delay, (6,)).ys
    probabilities = np.full((*ys.shape, 9), 1e-30)
    probabilities[:-10, :, 8] = 1
    probabilities[-10:, :, :8] = 1 / 8
    loss = -np.mean(np.log(np.take_along_axis(probabilities, ys[..., None], axis=-1)))
    assert memory.copying_floor(delay) == pytest.approx(loss, rel=1e-12)


def test_the_unitary_cell_is_a_complex_diagonal_and_keeps_every_norm():
    with jax.enable_x64(True):
        theta_h = unitary.init(jax.random.key(0), 3, 8, jnp.float64)
        xs = jax.random.normal(jax.random.key(1), (5, 2, 3), jnp.float64)
        h_0 = jax.random.normal(jax.random.key(2), (2, 8), jnp.float64)
        h_T, _ = jb.unroll(unitary.UNITARY, theta_h, xs, h_0)
        phi, W_x = map(np.asarray, theta_h)
        start = np.asarray(h_0)
        h, W = start[:, :4] + 1j * start[:, 4:], W_x[:4] + 1j * W_x[4:]
        for x_t in np.asarray(xs):
            h = np.exp(1j * phi) * h + x_t @ W.T
        np.testing.assert_allclose(h_T, np.concatenate([h.real, h.imag], axis=-1), rtol=1e-12)
        state_jacobian = jax.jacobian(lambda h_0: jb.unroll(unitary.UNITARY, theta_h, xs[:, 0], h_0)[0])(h_0[0])
        assert unitary.UNITARY.initial_state(theta_h, (3,)).shape == (3, 8)
        np.testing.assert_allclose(state_jacobian @ state_jacobian.T, np.eye(8), atol=1e-13)
    assert np.ptp(phi) > 1


@pytest.mark.parametrize(
    ("shares", "wanted"),
    [
        ({100: (1.019, 0.49), 200: (0.981, 0.0)}, "reproduced"),
        ({100: (1.03, 0.1)}, "not reproduced: the tanh network is +3.0% off the line at T = 100"),
        ({100: (0.95, 0.1)}, "not reproduced: the tanh network is -5.0% off the line at T = 100"),
        (
            {100: (1.0, 0.1), 200: (1.0, 0.5)},
            "not reproduced: the unitary network has 0.5 of the line at T = 200",
        ),
        (
            {100: (math.nan, math.nan)},
            "not reproduced: the tanh network is +nan% off the line at T = 100; the unitary network has nan of the"
            " line at T = 100",
        ),
    ],
)
def test_the_verdict_follows_from_the_numbers(shares, wanted):
    assert copy_memory.judge({T: {"tanh": tanh, "unitary": u} for T, (tanh, u) in shares.items()}) == wanted


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"batch_size": 0}, "`--batch-size` must be at least 1: got 0"),
        ({"delays": ()}, "`--delays` must be above 0: got nothing"),
        ({"delays": (5, 0)}, "`--delays` must be above 0: got 5, 0"),
        ({"unitary_hidden_size": 7}, "`--unitary-hidden-size` must be even and at least 2: got 7"),
        ({"updates": 10}, "`--updates` must be at least 50: got 10"),
        ({"clip": -1.0}, "`--clip` must be above 0: got -1.0"),
    ],
)
def test_flags_that_make_no_sense_are_refused(flags, message):
    with pytest.raises(BadInputError) as refused:
        copy_memory.Config(**flags)
    assert str(refused.value) == message


def test_a_quick_run_remembers_and_writes_what_it_found(tmp_path, capsys):
    assert cli.main(["run", "copy_memory", "--quick", "--out", str(tmp_path)]) == 0
    found = result(tmp_path)
    assert found["published"] == copy_memory.PUBLISHED
    assert found["delays"].keys() == {"10", "20"}
    for T, at in found["delays"].items():
        assert at["line"] == pytest.approx(10 * math.log(8) / (int(T) + 20))
        assert at["networks"].keys() == {"tanh", "unitary"}
        for name, row in at["networks"].items():
            assert row["cross_entropy"] == found["curves"][T][name]["cross_entropy"][-1]
            assert row["share_of_the_line"] == pytest.approx(np.array(row["cross_entropy"]) / at["line"])
            assert row["mean_share"] == pytest.approx(np.mean(row["share_of_the_line"]))
        assert at["networks"]["unitary"]["mean_share"] < 0.8 < at["networks"]["tanh"]["mean_share"]
    assert (tmp_path / "copy_memory.png").read_bytes().startswith(b"\x89PNG")
    assert f"verdict: {found['verdict'][:20]}" in capsys.readouterr().out
