"""One run has a folder, and several run at once, each with its own."""

import os
import subprocess
import sys
import threading

import jax
import numpy as np
import pytest

pytest.importorskip("orbax.checkpoint")

from tests import survivor
from tests.checkpoints.kept import assert_same, saver_of, tree

# Holds the folder until it is killed; a fork of it lives on, as a worker that loads data may.
HOLDS = """
import os, sys, time
from jaxbptt.training import checkpoints
held = checkpoints.saver(sys.argv[1], every=1).alone()
held.__enter__()
child = os.fork()
if child:
    print(child, flush=True)
time.sleep(60)
"""


def test_a_second_run_in_the_folder_is_refused_at_once(tmp_path):
    """By another process, and by one of this; the file of metrics stays as it was, and a kill leaves nothing behind."""
    (tmp_path / "metrics.jsonl").write_text("of the first\n")
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(survivor.pathlib.Path(__file__).parents[2])}
    command = [sys.executable, "-W", "ignore", "-c", HOLDS, str(tmp_path / "run")]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        child = int(process.stdout.readline())
        with pytest.raises(BlockingIOError, match=r"run` is in use by another run.* a folder of its own"):
            survivor.train(tmp_path)
        assert (tmp_path / "metrics.jsonl").read_text() == "of the first\n"
        assert [entry.name for entry in (tmp_path / "run").iterdir()] == [".lock"]
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
    try:
        with saver_of(tmp_path / "run").alone():
            (tmp_path / "link").symlink_to("run")
            with pytest.raises(BlockingIOError, match="is in use"), saver_of(tmp_path / "link").alone():
                pass
        with saver_of(tmp_path / "run").alone():
            pass
    finally:
        os.kill(child, 9)


def test_a_folder_that_cannot_be_locked_is_still_read(copy, monkeypatch):
    """One that may not be written, or of a file system without locks: what is there comes back."""

    def refuses(*given):
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr("fcntl.lockf", refuses)
    with saver_of(copy).alone():
        assert_same(saver_of(copy).restore(tree(0)), tree(2))


def test_runs_in_threads_do_not_disturb_one_another(tmp_path):
    """Each keeps itself many times, restores and ends with what it would have ended with alone."""
    found = {}

    def run(k):
        saver = saver_of(tmp_path / f"{k}")
        for step in range(10, 60, 10):
            saver.save(step, tree(k + step))
            found[k, step] = saver.restore(tree(0))

    threads = [threading.Thread(target=run, args=(k,)) for k in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(found) == [(k, step) for k in range(4) for step in range(10, 60, 10)]
    with jax.numpy_dtype_promotion("standard"):
        for (k, step), kept in found.items():
            assert_same(kept, tree(k + step))
    assert np.all([not thread.is_alive() for thread in threads])
