"""What was saved comes back bit for bit, the newest first."""

import numpy as np
import pytest

pytest.importorskip("orbax.checkpoint")

from jaxbptt.training import _files
from tests.checkpoints.kept import assert_same, saver_of, tree


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
