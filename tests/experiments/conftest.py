"""A study runs as from the shell: with JAX's own settings, not with the strict ones of the other tests.

Data that a study would download are small samples, in the format of the published file, in a cache of the tests' own.
"""

import contextlib
import functools
import hashlib
import json
import signal

import jax
import numpy as np
import pytest


@pytest.fixture(autouse=True)
def settings_of_a_fresh_process():
    with jax.enable_x64(False), jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield


@pytest.fixture
def x64():
    with jax.enable_x64(True):
        yield


@pytest.fixture(scope="package", autouse=True)
def chorales_file(tmp_path_factory):
    """A JSB_Chorales.mat of a few random pieces, which passes for the published one and is already downloaded."""
    io, music = pytest.importorskip("scipy.io"), pytest.importorskip("experiments.studies.chorales.music")
    rng, sample = np.random.default_rng(0), {}
    for part, count in (("train", 18), ("valid", 3), ("test", 4)):
        rolls = np.empty((1, count), object)
        rolls[0] = [(rng.random((rng.integers(3, 45), 88)) < 0.1).astype(np.uint8) for _ in range(count)]
        sample[f"{part}data"] = rolls
    cache = tmp_path_factory.mktemp("cache")
    path = cache / "jaxbptt" / music.JSB.name
    path.parent.mkdir()
    io.savemat(path, sample)
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(cache))
        patch.setattr(music, "JSB", music.JSB._replace(url="http://127.0.0.1:9/nothing", sha256=sha256))
        yield path


@pytest.fixture(scope="package")
def rolls(chorales_file):
    from experiments.studies.chorales import music

    return music.load(music.JSB)


@pytest.fixture(scope="package")
def quick(tmp_path_factory):
    """``result.json`` of a quick run and its folder, run once."""
    from experiments.runner import cli

    @functools.cache
    def run(study):
        folder = tmp_path_factory.mktemp(study)
        assert cli.main(["run", study, "--quick", "--out", str(folder)]) == 0
        return json.loads((folder / "result.json").read_text()), folder

    return run


@pytest.fixture
def cut_off(monkeypatch):
    """``cut_off(name, step)``: Ctrl-C, once, when the training of that name has come so far."""

    def at(name, step):
        from experiments.runner import terminal

        left = [step]

        @contextlib.contextmanager
        def progress():
            def report(stage, done, total, note=""):
                if left and stage == f"{name}, steps" and done >= left[0]:
                    left.clear()
                    signal.raise_signal(signal.SIGINT)

            yield report

        monkeypatch.setattr(terminal, "progress", progress)

    return at
