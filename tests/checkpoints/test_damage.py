"""Whatever happened to its files, a checkpoint comes back as it was saved or not at all."""

import json
import os
import pickle
import shutil
from typing import NamedTuple

import pytest

pytest.importorskip("orbax.checkpoint")

from tests.checkpoints.kept import assert_same, flipped, saver_of, tree

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
