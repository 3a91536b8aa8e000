"""A disk that refuses: the error says so, and the last good checkpoint stays."""

import errno
import os
import pathlib
import shutil
import subprocess

import pytest

pytest.importorskip("orbax.checkpoint")

from jaxbptt.training import _files
from tests import survivor
from tests.checkpoints.kept import assert_same, flipped, saver_of, tree


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


@pytest.mark.parametrize(
    ("code", "remedy"),
    [
        (errno.ENOSPC, "Make room, then"),
        (errno.EROFS, "Give a folder that can be written, then"),
        (errno.EIO, "Start again"),
    ],
)
@pytest.mark.parametrize("at", ["new_folder", "digests", "write", "replace"])
@pytest.mark.parametrize("step", [30, 20])
def test_an_error_at_any_moment_of_saving_leaves_the_last_good_one(copy, monkeypatch, step, at, code, remedy):
    with monkeypatch.context() as patch:
        patch.setattr(_files, at, refusing(getattr(_files, at), code))
        with pytest.raises(
            OSError, match=rf"step {step} could not .*{os.strerror(code)}.*of step 20, is as .*{remedy}"
        ):
            saver_of(copy).save(step, tree(3))
    assert_same(saver_of(copy).restore(tree(0)), tree(2))


def test_a_folder_that_is_a_file_is_found_before_the_first_step(tmp_path):
    (tmp_path / "run").write_text("")
    taken = []
    with pytest.raises(OSError, match=r"step 0 could not be written .*there is none before it"):
        survivor.train(tmp_path, [lambda progress: taken.append(progress.step)])
    assert not taken
