"""A process killed at ten random moments, begun again each time, ends with the bits of one that was left alone."""

import contextlib
import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

pytest.importorskip("orbax.checkpoint")

from tests import survivor

ROOT = pathlib.Path(__file__).parents[2]
KILLS = 10
SECONDS = 120  # for a process to come to its moment: one that hangs is to fail here


@contextlib.contextmanager
def started(folder):
    """The training, which is not left running. It writes to files: who fills a pipe that nobody reads stands still."""
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)}
    environment |= {"JAX_COMPILATION_CACHE_DIR": str(folder.parent / "compiled")}  # the kills are the test, not XLA
    environment |= {"JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
    command = [sys.executable, "-m", "tests.survivor", str(folder)]
    with open(folder / "out", "w") as out, open(folder / "err", "w") as err:
        process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=out, stderr=err)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def finish(folder):
    with started(folder) as process:
        status = process.wait(timeout=SECONDS)
    assert status == 0, (folder / "err").read_text()
    assert (folder / "out").read_text() == ""


def last_step(path):
    lines = path.read_bytes().splitlines(keepends=True) if path.exists() else []
    whole = [json.loads(line) for line in lines if line.endswith(b"\n")]  # read while it is written
    return whole[-1]["step"] if whole else 0


def test_a_process_killed_ten_times_ends_with_the_same_bits(tmp_path):
    undisturbed, killed = tmp_path / "undisturbed", tmp_path / "killed"
    undisturbed.mkdir()
    killed.mkdir()
    finish(undisturbed)

    rng = np.random.default_rng(0)
    moments = np.sort(rng.integers(0, survivor.STEPS - 4 * survivor.EVERY, KILLS))
    path, seen = killed / "metrics.jsonl", []
    for moment, delay in zip(moments, rng.uniform(0, 0.04, KILLS), strict=True):
        before = path.stat().st_mtime_ns if seen else 0
        with started(killed) as process:
            latest = time.monotonic() + SECONDS
            while process.poll() is None:  # until it has come to the moment, and has done something this time
                if last_step(path) >= moment and path.stat().st_mtime_ns != before:
                    break
                assert time.monotonic() < latest, (killed / "err").read_text()
                time.sleep(0.001)
            time.sleep(delay)  # to fall between the lines: in a step, or in the midst of a checkpoint
        assert process.returncode == -signal.SIGKILL, "it was over before it was killed"
        seen.append(last_step(path))
    assert len(set(seen)) > KILLS // 2
    finish(killed)

    with np.load(undisturbed / "final.npz") as wanted, np.load(killed / "final.npz") as found:
        assert wanted.keys() == found.keys()
        for name in wanted:
            assert wanted[name].dtype == found[name].dtype
            assert wanted[name].tobytes() == found[name].tobytes(), name
        assert int(found["[0].step"]) == survivor.STEPS
        assert int(found["[0].skipped.total"]) == len(range(5, survivor.STEPS, 17))
    assert (undisturbed / "metrics.jsonl").read_bytes() == path.read_bytes()
    assert last_step(path) == survivor.STEPS
    names = {entry.name for entry in (killed / "run").iterdir()} - {".lock"}
    assert names
    assert all(len(name) == 12 and name.isdigit() for name in names)  # nothing half written is left
