"""A folder with two checkpoints, and a copy of it to be damaged."""

import pathlib
import shutil
import warnings

import pytest

from tests.checkpoints.kept import saver_of, tree


@pytest.fixture(autouse=True)
def _promotes(standard_promotion):
    pass


@pytest.fixture(scope="package")
def two(tmp_path_factory):
    """A folder with the checkpoints of steps 10 and 20."""
    folder = tmp_path_factory.mktemp("two")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        saver_of(folder).save(10, tree(1))
        saver_of(folder).save(20, tree(2))
    return folder


@pytest.fixture
def copy(two, tmp_path):
    return pathlib.Path(shutil.copytree(two, tmp_path / "copy"))
