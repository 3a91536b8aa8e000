"""Pieces of their own lengths against loops over each of them; the file they come from; the study from end to end."""

import contextlib
import json
import math
import os
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

from scipy import io

import jaxbptt as jb
from experiments import chorales, cli, fetched, music, terminal
from experiments.options import NoDataError

QUICK = ["run", "chorales", "--quick", "--out"]


@pytest.fixture(scope="module")
def rolls():
    return music.load(music.JSB)


def numbers(folder):
    return json.loads((folder / "result.json").read_text())


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("chorales")
    with jax.enable_x64(False), jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        assert cli.main([*QUICK, str(folder)]) == 0
    return folder


# pieces


def test_padding_reaches_neither_F_nor_a_gradient(rolls):
    pieces = rolls.train[:3]
    assert len({len(piece) for piece in pieces}) == 3
    model = jb.rnn(jb.cells.gru(), jb.readouts.linear())
    with jax.enable_x64(True):
        theta = model.init(jax.random.key(0), input_size=88, hidden_size=3, output_size=88, dtype=jnp.float64)
        F = jax.jit(jax.value_and_grad(jb.objective(model, chorales.LOSS)))
        zeros, nans = (
            jax.tree.map(
                lambda leaf: leaf if leaf.dtype == bool else leaf.astype(np.float64), music.padded(pieces, fill=fill)
            )
            for fill in (0.0, math.nan)
        )
        assert np.isnan(nans.xs).any()
        value, bars = F(theta, zeros.xs, zeros.ys, None, zeros.mask)
        value_of_nans, bars_of_nans = F(theta, nans.xs, nans.ys, None, nans.mask)

        def by_piece(theta):  # without padding, mask or library
            total, steps = 0.0, 0
            for piece in pieces:
                h = jnp.zeros(3)
                for x, y in zip(piece[:-1].astype(float), piece[1:].astype(float), strict=True):
                    h = model.cell.apply(theta.h, jnp.asarray(x), h)
                    p = 1 / (1 + jnp.exp(-(theta.o.W_o @ h + theta.o.b)))
                    total, steps = total - jnp.sum(y * jnp.log(p) + (1 - y) * jnp.log(1 - p)), steps + 1
            return total / steps

        wanted, wanted_bars = jax.value_and_grad(by_piece)(theta)
    assert value == value_of_nans == pytest.approx(float(wanted), rel=1e-12)
    for bar, bar_of_nans, wanted_bar in zip(*map(jax.tree.leaves, (bars, bars_of_nans, wanted_bars)), strict=True):
        np.testing.assert_array_equal(bar, bar_of_nans)
        np.testing.assert_allclose(bar, wanted_bar, rtol=1e-9, atol=1e-14)
        assert np.any(np.asarray(wanted_bar))


def test_what_is_seen_is_the_step_before_what_is_to_be_predicted(rolls):
    batch = music.padded(rolls.test)
    assert batch.xs.shape[0] % music.PART == 0
    for k, piece in enumerate(rolls.test):
        steps = len(piece) - 1
        np.testing.assert_array_equal(batch.mask[:, k], np.arange(len(batch.mask)) < steps)
        for t in range(steps):
            np.testing.assert_array_equal(batch.xs[t, k], piece[t])
            np.testing.assert_array_equal(batch.ys[t, k], piece[t + 1])
        assert not batch.xs[steps:, k].any()


def test_a_pass_takes_each_piece_at_most_once_in_an_order_of_its_own(rolls):
    found = {piece[:-1].tobytes(): k for k, piece in enumerate(rolls.train)}
    batch = music.batches(rolls.train, 4, (3, 1))

    def taken(k):
        xs, _, mask, _ = batch(k)
        return [found[xs[mask[:, j], j].tobytes()] for j in range(4)]

    passes = [[taken(4 * e + k) for k in range(4)] for e in range(12)]  # 18 pieces: two are left out
    for one in passes:
        assert len({k for chosen in one for k in chosen}) == 16
    assert len({k for one in passes for chosen in one for k in chosen}) == 18
    assert len({str(one) for one in passes}) == 12
    assert [taken(k) for k in (9, 2, 9)] == [passes[2][1], passes[0][2], passes[2][1]]  # position is the step alone
    other = music.batches(rolls.train, 4, (3, 2))
    assert any(not np.array_equal(other(k).mask, batch(k).mask) for k in range(4))


def test_lengths_within_a_batch_are_similar(rolls):
    spans = [np.ptp(music.batches(rolls.train, 6, (0,), spread=0.5)(k).mask.sum(axis=0)) for k in range(3)]
    lengths = np.sort([len(piece) for piece in rolls.train])
    assert sorted(spans) == sorted(np.ptp(lengths.reshape(3, 6), axis=1))


def test_the_floors_are_those_of_counting_one_by_one(rolls):
    unigram = markov = 0.0
    steps = sum(len(piece) - 1 for piece in rolls.test)
    for pitch in range(88):
        counts = {(before, after): 0.5 for before in (0, 1) for after in (0, 1)}
        sounds = {0: 0.5, 1: 0.5}
        for piece in rolls.train:
            for before, after in zip(piece[:-1, pitch], piece[1:, pitch], strict=True):
                counts[int(before), int(after)] += 1
                sounds[int(after)] += 1
        for piece in rolls.test:
            for before, after in zip(piece[:-1, pitch], piece[1:, pitch], strict=True):
                before, after = int(before), int(after)
                unigram -= math.log(sounds[after] / (sounds[0] + sounds[1]))
                markov -= math.log(counts[before, after] / (counts[before, 0] + counts[before, 1]))
    floors = music.floors(rolls.train, rolls.test)
    assert floors == pytest.approx((unigram / steps, markov / steps), rel=1e-12)


# the file


def test_the_file_is_found_by_its_path_and_by_its_folder(chorales_file, rolls):
    for path in (chorales_file, chorales_file.parent, str(chorales_file)):
        for a, b in zip(jax.tree.leaves(music.load(music.JSB, path)), jax.tree.leaves(rolls), strict=True):
            np.testing.assert_array_equal(a, b)
            assert a.dtype == np.float32


@pytest.fixture
def damaged(tmp_path, chorales_file):
    """Files that are not the published one, by what is wrong with them."""
    content = bytearray(chorales_file.read_bytes())
    content[-1] ^= 1
    (tmp_path / "changed.mat").write_bytes(content)
    (tmp_path / "text.mat").write_text("<html>not here</html>")
    return tmp_path


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("none.mat", r"`--data`: cannot read `.*none.mat`: No such file or directory\. Download http.* `--data PATH`"),
        ("text.mat", r"`.*text.mat` is not a .mat file: download http.* and give it with `--data PATH`"),
        (
            "changed.mat",
            r"`.*changed.mat` is not the published JSB_Chorales.mat: its SHA-256 begins \w{12}, not \w",
        ),
    ],
)
def test_a_file_that_is_not_the_published_one_is_one_clear_line(name, message, damaged, capsys):
    assert cli.main([*QUICK, str(damaged / "out"), "--data", str(damaged / name)]) == 2
    err = capsys.readouterr().err.split("\n", 1)[1].splitlines()  # the first line was that of the progress bars
    assert len(err) == 1
    with pytest.raises(NoDataError, match=message):
        music.load(music.JSB, damaged / name)
    assert err[0].startswith("error: `")


def test_without_a_network_it_is_said(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cli.main([*QUICK, str(tmp_path / "out")]) == 2
    err = capsys.readouterr().err.lstrip()
    assert err.startswith("error: cannot download JSB_Chorales.mat (")
    assert err.endswith("). Download http://127.0.0.1:9/nothing and give it with `--data PATH`\n")
    assert cli.main(["reproduce", "--quick", "--only", "chorales", "--out", str(tmp_path / "all")]) == 1
    assert "chorales: not run: cannot download JSB_Chorales.mat (" in capsys.readouterr().out


def test_a_download_is_checked_kept_and_not_repeated(tmp_path, monkeypatch, chorales_file):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    home = tmp_path / "home.mat"
    home.write_bytes(b"something else")
    source = music.JSB._replace(url=home.as_uri())
    with pytest.raises(NoDataError, match=r"what file:.* sent is not the published JSB_Chorales.mat: its SHA-256"):
        fetched.content(source)
    assert not (tmp_path / "cache").exists()
    home.write_bytes(chorales_file.read_bytes())
    kept = tmp_path / "cache" / "jaxbptt" / "JSB_Chorales.mat"
    assert fetched.content(source)[0] == kept.read_bytes() == home.read_bytes()
    kept.write_bytes(b"torn")
    assert fetched.content(source)[0] == kept.read_bytes() == home.read_bytes()
    home.unlink()
    assert fetched.content(source) == (chorales_file.read_bytes(), f"`{kept}`")


def test_a_cache_that_cannot_be_written_to_costs_nothing_else(tmp_path, monkeypatch, chorales_file):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    source = music.JSB._replace(url=chorales_file.as_uri())
    assert fetched.content(source)[0] == chorales_file.read_bytes()


def test_no_home_is_said(monkeypatch):
    def no_home():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(fetched.Path, "home", no_home)
    with pytest.raises(NoDataError, match="no home folder to keep a download in: set XDG_CACHE_HOME, or give the file"):
        fetched.cache()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"testdata": None}, "is not a .mat file of piano rolls (KeyError: 'testdata')"),
        ({"validdata": [np.zeros((5, 87))]}, "has a piece of shape (5, 87) in `validdata`: each is [T, 88] with T ≥ 2"),
        ({"traindata": [np.zeros((1, 88))]}, "has a piece of shape (1, 88) in `traindata`: each is [T, 88] with T ≥ 2"),
        ({"traindata": []}, "has no piece in `traindata`"),
        ({"testdata": [np.full((3, 88), 2)]}, "has something other than 0 and 1 in `testdata`"),
    ],
)
def test_a_mat_file_of_something_else_is_refused(change, message, tmp_path):
    arrays = {}
    for name, pieces in ({f"{part}data": [np.zeros((4, 88))] for part in music.Rolls._fields} | change).items():
        if pieces is not None:
            arrays[name] = np.empty((1, len(pieces)), object)
            arrays[name][0] = pieces
    io.savemat(tmp_path / "some.mat", arrays)
    with pytest.raises(NoDataError) as caught:
        music.read((tmp_path / "some.mat").read_bytes())
    assert message in str(caught.value)


def test_a_torn_mat_file_is_refused(chorales_file):
    content = chorales_file.read_bytes()
    with pytest.raises(NoDataError, match=r"`it` is not a .mat file of piano rolls \("):
        music.read(content[: len(content) // 2], "`it`")


# the study


def test_the_noise_is_on_every_weight_anew_for_each_key():
    def moved(theta, state, xs, ys, mask=None, key=None):
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
    assert found["verdict"].startswith("not reproduced: tanh needs ")


def test_a_training_that_was_cut_off_ends_with_the_same_numbers(undisturbed, tmp_path, monkeypatch, capsys):
    @contextlib.contextmanager
    def interrupting():
        def report(stage, done, total, note=""):
            if stage.startswith("gru_0") and done == 2:
                os.kill(os.getpid(), signal.SIGINT)

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
