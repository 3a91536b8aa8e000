"""Checkpoints: what was saved comes back bit for bit or not at all, whatever happened to the disk."""

import errno
import json
import os
import pathlib
import pickle
import shutil
import subprocess
import warnings
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

pytest.importorskip("orbax.checkpoint")

import jaxbptt as jb
from jaxbptt.training import _files, checkpoints
from tests import survivor

pytestmark = pytest.mark.usefixtures("standard_promotion")


@pytest.fixture
def standard_promotion():
    """Optax's Adam needs it."""
    with jax.numpy_dtype_promotion("standard"):
        yield


class Tree(NamedTuple):
    weights: Any
    more: dict


def tree(seed=0):
    """Every kind of leaf, and names that no file could have."""
    rng = np.random.default_rng(seed)
    more = {
        "a/b": jnp.asarray(rng.normal(size=(2, 3))),
        "..": jnp.asarray(rng.normal(size=4), jnp.bfloat16),
        "": (np.array(seed), np.array([True, False]), None),
        "key": jax.random.key(seed),
        "fast": jax.random.key(seed, impl="rbg"),
        "old": jax.random.PRNGKey(seed),
        "empty": jnp.zeros((0, 3)),
        "numbers": [seed + 7, 0.5 + seed, seed > 0, np.float32(seed), jnp.int8(seed)],
        "nan": np.array([np.nan, -0.0, np.inf, 5e-324]),
    }
    return Tree(jnp.asarray(rng.normal(size=(5, 2)), jnp.float32), more)


def parts(leaf):
    is_key = hasattr(leaf, "dtype") and jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)
    array = np.asarray(jax.random.key_data(leaf) if is_key else leaf)
    kind = type(leaf) if isinstance(leaf, (int, float)) else isinstance(leaf, jax.Array)
    return kind, str(getattr(leaf, "dtype", "")), array.shape, array.tobytes()


def assert_same(found, wanted):
    assert jax.tree.structure(found) == jax.tree.structure(wanted)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
        assert parts(a) == parts(b)


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """A folder with the checkpoints of steps 10 and 20."""
    folder = tmp_path_factory.mktemp("two")
    saver = checkpoints.saver(folder, every=10, about={"name": "two", "rate": 0.1})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        saver.save(10, tree(1))
        saver.save(20, tree(2))
    return folder


@pytest.fixture
def copy(two, tmp_path):
    return pathlib.Path(shutil.copytree(two, tmp_path / "copy"))


def saver_of(folder, **options):
    return checkpoints.saver(folder, every=10, **{"about": {"name": "two", "rate": 0.1}, **options})


# What comes back


def test_what_comes_back_is_what_was_saved(two):
    assert_same(saver_of(two).restore(tree(0)), tree(2))


def test_a_folder_without_checkpoints_has_none(tmp_path):
    assert saver_of(tmp_path / "nothing").restore(tree(0)) is None
    assert not (tmp_path / "nothing").exists()
    (tmp_path / "notes.txt").write_text("not ours")
    assert saver_of(tmp_path).restore(tree(0)) is None


def test_the_newest_are_kept(tmp_path):
    saver = saver_of(tmp_path, keep=2)
    for step in (0, 10, 20, 30):
        saver.save(step, {"step": step})
        assert [int(name) for name in _files.names(tmp_path)] == [s for s in (step - 10, step) if s >= 0]
    (tmp_path / "000000000020" / "manifest.json").unlink()  # a copy that was cut off
    (tmp_path / f"000000000050.part-{0:032x}" / "state").mkdir(parents=True)  # killed while it was written
    (tmp_path / "notes.part-1").mkdir()
    saver.save(40, {"step": 40})
    assert _files.names(tmp_path) == ["000000000030", "000000000040", "notes.part-1"]


def test_saving_a_step_again_replaces_it(copy):
    saver_of(copy).save(20, tree(5))
    assert_same(saver_of(copy).restore(tree(0)), tree(5))


def test_a_saved_tree_may_change_afterwards(tmp_path):
    given = {"a": np.arange(5.0)}
    saver_of(tmp_path).save(1, given)
    given["a"][:] = 0
    np.testing.assert_array_equal(saver_of(tmp_path).restore(given)["a"], np.arange(5.0))


# Damage


def flipped(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))


DAMAGES = {
    "one bit": flipped,
    "cut off": lambda path: path.write_bytes(path.read_bytes()[:-1]),
    "emptied": lambda path: path.write_bytes(b""),
    "longer": lambda path: path.write_bytes(path.read_bytes() + b"\n "),
    "gone": lambda path: path.unlink(),
    "a folder": lambda path: (path.unlink(), path.mkdir()),
    "a link to itself": lambda path: (path.rename(path.with_name("moved")), path.symlink_to("moved")),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_damage_to_any_file_is_found_and_the_older_one_used(copy, damage):
    newest = copy / "000000000020"
    files = sorted(path.relative_to(newest) for path in newest.rglob("*") if path.is_file())
    assert len(files) > 5
    for name in files:
        shutil.copytree(newest, copy.parent / "good")
        damage(newest / name)
        expected = f"state/.*|{name.name}"
        with pytest.warns(RuntimeWarning, match=rf"step 20 is refused.*({expected}).*that of step 10 is used instead"):
            assert_same(saver_of(copy).restore(tree(0)), tree(1))
        shutil.rmtree(newest)
        (copy.parent / "good").rename(newest)
    assert_same(saver_of(copy).restore(tree(0)), tree(2))


class Bomb(NamedTuple):
    """Makes a folder when it is unpickled."""

    path: str

    def __reduce__(self):
        return os.mkdir, (self.path,)


BAD_MANIFESTS = {
    "null": b"null",
    "list": b"[]",
    "number": b"1e999",
    "no json": b"{",
    "no text": b"\xff\xfe\x00",
    "nested": b"[" * 100_000,
    "empty object": b"{}",
    "wrong types": b'{"sha256": 1, "format": 1, "step": 20, "about": [], "leaves": 3, "files": null}',
}


@pytest.mark.parametrize("content", BAD_MANIFESTS.values(), ids=BAD_MANIFESTS)
def test_a_manifest_of_any_content_is_refused(copy, content):
    (copy / "000000000020" / "manifest.json").write_bytes(content)
    with pytest.warns(RuntimeWarning, match=r"step 20 is refused, as its manifest\.json"):
        assert_same(saver_of(copy).restore(tree(0)), tree(1))


def test_a_manifest_of_another_step_is_refused(copy):
    shutil.copy(copy / "000000000010" / "manifest.json", copy / "000000000020" / "manifest.json")
    with pytest.warns(RuntimeWarning, match="step 20 is refused"):
        assert_same(saver_of(copy).restore(tree(0)), tree(1))


def test_an_edited_manifest_is_refused(copy):
    path = copy / "000000000020" / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["about"]["rate"] = 0.2
    path.write_text(json.dumps(manifest))
    with pytest.warns(RuntimeWarning, match=r"step 20 is refused, as its manifest\.json is not as it was written"):
        assert_same(saver_of(copy, about={"name": "two", "rate": 0.1}).restore(tree(0)), tree(1))


@pytest.mark.parametrize(("name", "reason"), [("manifest.json", "can't be read"), ("state/extra.pkl", "was added")])
def test_nothing_is_unpickled(copy, name, reason):
    bomb = pickle.dumps(Bomb(str(copy.parent / "unpickled")))
    (copy / "000000000020" / name).write_bytes(bomb)
    with pytest.warns(RuntimeWarning, match=rf"step 20 is refused, as (its )?{name} {reason}"):
        assert_same(saver_of(copy).restore(tree(0)), tree(1))
    assert not (copy.parent / "unpickled").exists()
    pickle.loads(bomb)
    assert (copy.parent / "unpickled").exists()  # it would have gone off


def test_when_none_is_good_nothing_is_begun_anew(copy):
    for step in (10, 20):
        flipped(copy / f"{step:012d}" / "state" / "_METADATA")
    with pytest.raises(ValueError, match=r"no checkpoint in .* is good: .*step 20 .*step 10 .*begin anew"):
        saver_of(copy).restore(tree(0))


def test_a_run_that_was_killed_in_its_first_save_begins_anew(copy, tmp_path):
    (tmp_path / "run").mkdir()
    (copy / "000000000020").rename(tmp_path / "run" / f"000000000020.part-{0:032x}")
    assert saver_of(tmp_path / "run").restore(tree(0)) is None


# A disk that refuses


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 160 kB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=160k", "tmpfs", str(folder)]
    if os.geteuid() != 0 or shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("needs leave to mount")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def refusing(function, code=errno.EIO):
    """The same, but the disk refuses what has to do with a checkpoint that is being written."""

    def refuses(path, *more, **options):
        if ".part-" in str(path):
            raise OSError(code, os.strerror(code))
        return function(path, *more, **options)

    return refuses


# orbax leaves tasks behind in the event loop that a full disk ended
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_full_disk_is_a_clear_error_and_the_last_good_one_stays(small_disk):
    saver = saver_of(small_disk / "run")
    saver.save(10, tree(1))
    free = os.statvfs(small_disk)
    (small_disk / "filler").write_bytes(bytes(free.f_bavail * free.f_frsize - 3 * 4096))  # room to begin
    with pytest.raises(OSError, match=r"step 20 could not be written .*No space left.*of step 10, is as it was"):
        saver.save(20, tree(2))
    assert_same(saver.restore(tree(0)), tree(1))
    (small_disk / "filler").unlink()
    saver.save(20, tree(2))
    assert_same(saver.restore(tree(0)), tree(2))


def test_the_last_good_one_that_an_error_names_is_good(copy, monkeypatch):
    """As when a run fell back, comes to the step of the damaged one again, and the disk is full by then."""
    flipped(copy / "000000000020" / "state" / "_METADATA")
    monkeypatch.setattr(_files, "digests", refusing(_files.digests))
    with pytest.raises(OSError, match=r"step 20 could not be written .*of step 10, is as it was"):
        saver_of(copy).save(20, tree(3))


@pytest.mark.parametrize("call", [1, 2])
def test_an_error_between_the_renames_leaves_a_good_one(copy, monkeypatch, call):
    """A step is saved again: the old one goes aside, the new one takes its place."""
    renames, rename = [], os.replace

    def replace(source, target):
        if os.path.isdir(source):
            renames.append(target)
            if len(renames) == call:
                raise OSError(errno.EIO, os.strerror(errno.EIO))
        rename(source, target)

    monkeypatch.setattr(os, "replace", replace)
    left = {1: 20, 2: 10}[call]
    with pytest.raises(OSError, match=rf"step 20 could not be written .*of step {left}, is as it was"):
        saver_of(copy).save(20, tree(3))
    assert_same(saver_of(copy).restore(tree(0)), tree(left // 10))
    saver_of(copy).save(20, tree(3))  # once more, and nothing is left lying about
    assert_same(saver_of(copy).restore(tree(0)), tree(3))
    assert _files.names(copy) == ["000000000010", "000000000020"]


def test_what_a_thread_writes_after_the_error_is_nobodys_checkpoint(copy, monkeypatch):
    """As orbax does when one of its writers meets a full disk and the others have not heard of it."""
    folders = []

    def save(self, path, arrays):
        folders.append(pathlib.Path(path))
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def write_late():
        (folders[-1] / "d").mkdir(parents=True)
        (folders[-1] / "d" / "late").write_bytes(b"late")

    with monkeypatch.context() as patch:
        patch.setattr("orbax.checkpoint.StandardCheckpointer.save", save)
        with pytest.raises(OSError, match=r"step 30 could not be written .*of step 20, is as it was"):
            saver_of(copy).save(30, tree(3))
    assert not folders[-1].parent.exists()
    write_late()
    assert_same(saver_of(copy).restore(tree(0)), tree(2))  # without a warning
    saver_of(copy).save(30, tree(3))
    assert not folders[-1].parent.exists()
    write_late()
    assert_same(saver_of(copy).restore(tree(0)), tree(3))


def test_a_disk_that_became_read_only_is_a_clear_error_and_the_last_good_one_stays(small_disk):
    saver = saver_of(small_disk / "run")
    saver.save(10, tree(1))
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    with pytest.raises(OSError, match=r"step 20 could not be written .*Read-only.*of step 10, is as it was"):
        saver.save(20, tree(2))
    assert_same(saver.restore(tree(0)), tree(1))


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS, errno.EIO])
@pytest.mark.parametrize("at", ["new_folder", "digests", "write", "replace"])
@pytest.mark.parametrize("step", [30, 20])
def test_an_error_at_any_moment_of_saving_leaves_the_last_good_one(copy, monkeypatch, step, at, code):
    with monkeypatch.context() as patch:
        patch.setattr(_files, at, refusing(getattr(_files, at), code))
        with pytest.raises(OSError, match=rf"step {step} could not .*{os.strerror(code)}.*of step 20, is as it"):
            saver_of(copy).save(step, tree(3))
    assert_same(saver_of(copy).restore(tree(0)), tree(2))


def test_a_folder_that_is_a_file_is_found_before_the_first_step(tmp_path):
    (tmp_path / "run").write_text("")
    taken = []
    with pytest.raises(OSError, match=r"step 0 could not be written .*there is none before it"):
        survivor.train(tmp_path, [lambda progress: taken.append(progress.step)])
    assert not taken


# Whole runs


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed")
    with jax.numpy_dtype_promotion("standard"):
        return folder, survivor.leaves(survivor.train(folder, saver=False))


def assert_as_undisturbed(folder, result, undisturbed):
    path, wanted = undisturbed
    found = survivor.leaves(result)
    assert found.keys() == wanted.keys()
    for name in wanted:
        assert found[name].tobytes() == wanted[name].tobytes(), name
    assert (folder / "metrics.jsonl").read_bytes() == (path / "metrics.jsonl").read_bytes()


def test_two_runs_give_the_same_bits(tmp_path, undisturbed):
    assert_as_undisturbed(tmp_path, survivor.train(tmp_path, saver=False), undisturbed)


def test_a_paused_run_goes_on_to_the_same_bits(tmp_path, undisturbed):
    """As after Ctrl-C: wherever it is paused, the last dispatch included, and without being saved in between."""
    for pause in (4, 52, 100, survivor.STEPS):
        paused = survivor.train(tmp_path, [lambda progress, pause=pause: progress.step >= pause])
        assert int(paused.state.step) == pause
    result = survivor.train(tmp_path, [lambda progress: False])
    assert len(result.metrics.loss) == 0  # it was over
    assert_as_undisturbed(tmp_path, result._replace(observed=result.observed[:2]), undisturbed)


def test_an_error_in_the_midst_costs_no_more_than_the_steps_since_the_last_checkpoint(tmp_path, undisturbed):
    def fails(progress):
        if progress.step == 100:
            raise KeyError("a bug of the user's")

    with pytest.raises(KeyError, match="a bug"):
        survivor.train(tmp_path, [fails])
    taken = []
    result = survivor.train(tmp_path, [lambda progress: taken.append(progress.step)])
    assert taken[0] == 96 + survivor.PER_DISPATCH
    assert_as_undisturbed(tmp_path, result._replace(observed=result.observed[:2]), undisturbed)


def test_a_torn_checkpoint_costs_the_steps_since_the_one_before(tmp_path, undisturbed):
    survivor.train(tmp_path, [lambda progress: progress.step >= 100])
    flipped(tmp_path / "run" / f"{100:012d}" / "state" / "_METADATA")
    with pytest.warns(RuntimeWarning, match=r"that of step 100 is refused.*that of step 96 is used instead"):
        result = survivor.train(tmp_path, [lambda progress: False])
    assert_as_undisturbed(tmp_path, result._replace(observed=result.observed[:2]), undisturbed)


def test_a_run_that_an_observer_ended_is_over(tmp_path):
    def train():
        return survivor.train(tmp_path, [survivor.jb.training.early_stopping(lambda theta: 1.0, every=4, patience=3)])

    first, again = train(), train()
    assert int(first.state.step) == 16  # the first is the best, and three are no better
    assert len(again.metrics.loss) == 0
    for a, b in zip(jax.tree.leaves(first.observed), jax.tree.leaves(again.observed), strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_run_with_other_callbacks_or_settings_is_refused(tmp_path):
    survivor.train(tmp_path, steps=8)
    with pytest.raises(ValueError, match=r"of another model, optimiser or callback: the leaf `\.observed\[2\]\.loss`"):
        survivor.train(tmp_path, [survivor.jb.training.early_stopping(lambda theta: 1.0, every=4)])
    other = checkpoints.saver(tmp_path / "run", every=survivor.EVERY, about={"seed": 4})
    with pytest.raises(ValueError, match="is of another run: seed=3 there, 4 here"):
        survivor.train(tmp_path, saver=other)


def test_a_longer_run_goes_on_from_a_shorter_one(tmp_path, undisturbed):
    survivor.train(tmp_path, steps=120)
    assert_as_undisturbed(tmp_path, survivor.train(tmp_path), undisturbed)


def test_a_run_split_over_devices_goes_on(tmp_path):
    """What was not put on one device before it was saved is not afterwards: two devices share the next step."""
    model = jb.rnn(jb.cells.elman(), jb.readouts.linear())
    theta = model.init(jax.random.key(0), input_size=3, hidden_size=4, output_size=2, dtype=jnp.float64)
    estimator = jb.estimators.from_objective(jb.data_parallel(jb.objective(model, jb.losses.l2_loss)))
    assert len(jax.devices()) == 2
    xs, ys = np.ones((3, 4, 3)), np.ones((3, 4, 2))

    def fit(folder, steps):
        saver = jb.training.checkpoints.saver(tmp_path / folder, every=1)
        options = {"steps": steps, "steps_per_dispatch": 1, "checkpoints": saver}
        return jb.training.fit(estimator, optax.sgd(0.1), theta, lambda k: (xs, ys), **options).theta

    fit("two", 1)
    for once, twice in zip(jax.tree.leaves(fit("one", 2)), jax.tree.leaves(fit("two", 2)), strict=True):
        np.testing.assert_array_equal(once, twice)
