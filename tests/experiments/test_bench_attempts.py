"""A run of the benchmark that nobody watches: who fails or ends the process is left out, the others are measured."""

import collections
import json
import os
import pathlib
import subprocess
import sys

import pytest

pytest.importorskip("tyro")
pytest.importorskip("matplotlib")
pytest.importorskip("rich")
pytest.importorskip("sklearn")

from experiments.benchmarks.config import Config
from experiments.benchmarks.measuring import attempts, beside, side_by_side, speed
from experiments.benchmarks.peers import contenders
from experiments.benchmarks.peers import work as works
from experiments.benchmarks.peers.contender import Contender
from tests.experiments.called_beside import nothing

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # the peers' own

ROOT = pathlib.Path(__file__).parents[2]
WORK = works.make("elman", works.Shape(B=4, T=5, d=2, n=3))
SCAN = contenders.PEERS[0]


def build_and_abort(work):
    os.abort()


ABORTS = Contender("aborts", "jax", build_and_abort, flag="aborts")


def test_a_reference_that_cannot_be_had_is_nobodys_fault(monkeypatch):
    def dies(work, reset_before=False):
        raise SystemError("at this shape")

    reports = []
    monkeypatch.setattr(side_by_side.plain, "reference", dies)
    row = speed.row(WORK, (SCAN,), 1, 0.01, lambda *progress: reports.append(progress))
    assert reports[0] == ("speed, this row: the reference", 0, 1)
    assert row.left_out == {"scan": "nothing to check it against: at this shape"}


def test_who_ends_the_process_is_left_out_and_the_others_are_measured():
    with beside.beside(nothing, lambda *progress: None) as process:
        row = attempts.everybody(
            process.measure, speed.row, WORK, (ABORTS, SCAN), 1, 0.01, lost := collections.Counter()
        )
    assert list(row.timed) == ["scan"]
    assert row.left_out == {"aborts": "its process was ended by SIGABRT"}
    assert lost == {"aborts": 1}


class Works:
    """Runs as often as it is told to, then raises."""

    def __init__(self, times):
        self.left = times

    def __call__(self, work):
        scan = contenders.build(SCAN, work)

        def run():
            self.left -= 1
            if self.left < 0:
                raise MemoryError("of the device")
            return scan.run()

        return scan._replace(run=run)


def test_who_fails_while_the_clock_runs_is_left_out_and_from_the_third_row_on_not_asked():
    fails = Contender("fails", "jax", Works(2), flag="fails")
    lost, reasons = collections.Counter(), []
    with beside.beside(nothing, lambda *progress: None) as process:
        for seen in (1, 2, 2):
            row = attempts.everybody(process.measure, speed.row, WORK, (fails, SCAN), 2, 0.01, lost)
            assert list(row.timed) == ["scan"]
            assert lost == {"fails": seen}
            reasons.append(row.left_out["fails"])
    assert reasons == [*["MemoryError: of the device"] * 2, "ended two rows before"]


def test_an_error_that_stays_is_blamed_on_whom_it_began_with(monkeypatch):
    """The device computes no more after the first; who comes after it isn't asked in this process."""

    def lost(value):
        raise ValueError("CUDA_ERROR_ILLEGAL_ADDRESS")

    reports = []
    monkeypatch.setattr(side_by_side.jax, "block_until_ready", lost)
    broken = Contender("broken", "jax", Works(0), flag="broken")
    with pytest.raises(RuntimeError, match="CUDA_ERROR_ILLEGAL_ADDRESS; and the device computes no more"):
        side_by_side.side_by_side(WORK, (broken, SCAN), 1, 0.01, lambda *progress: reports.append(progress), what="")
    assert reports[-1][-1] == "broken"


def test_a_row_is_lost_when_twice_nobody_knows_who_ended_it():
    def measure(function, *arguments):
        if times.pop():
            raise beside.LostError("its process was ended by SIGKILL", "")
        return function(*arguments, lambda *progress: None)

    times = [False, True]
    row = attempts.everybody(measure, speed.row, WORK, (SCAN,), 1, 0.01, lost := collections.Counter())
    assert (list(row.timed), row.left_out, lost, times) == (["scan"], {}, {"": 1}, [])
    times = [False, True]
    with pytest.raises(beside.LostError):
        attempts.everybody(measure, speed.row, WORK, (SCAN,), 1, 0.01, lost)


def test_a_device_that_cannot_be_cleaned_up_says_what_came_before(monkeypatch):
    def broken():
        raise RuntimeError("at the clean-up")

    def measurement():
        raise SystemError("before it")

    monkeypatch.setattr(attempts.jax, "clear_caches", broken)
    with pytest.raises(SystemError, match="before it"):
        attempts._then_let_go(measurement)


def test_on_a_gpu_what_it_is_for_comes_first():
    """Nothing is lost by the order, and what a flag asks for is measured as it says."""
    gpu = Config(gpu=True)
    assert gpu.parts[0] == "checkpoint"
    assert set(gpu.parts) == set(Config().parts)
    assert str(gpu.speed_shapes[0]) == "64,512,1024,1024"
    assert set(Config().speed_shapes) < set(gpu.speed_shapes)
    asked = Config(gpu=True, what=("memory", "speed", "memory"), shapes=("1,2,3,4",))
    assert (asked.parts, len(asked.speed_shapes)) == (("memory", "speed"), 1)


def test_an_unattended_run_on_a_gpu_goes_on_without_what_fails_there(tmp_path):
    """Every process is told of a GPU and finds none: who believes it is left out by name, the rest is measured."""
    (tmp_path / "sitecustomize.py").write_text('import jax\njax.default_backend = lambda: "gpu"\n')
    out = tmp_path / "out"
    flags = ["--gpu", "--quick", "--cells", "lstm", "--adjoints", "full", "--peers", "scan", "torch"]
    flags += ["--sweep-cell", "elman", "--lengths", "3", "40", "--slots", "5"]
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    ran = subprocess.run(
        [sys.executable, "-m", "experiments", "bench", *flags, "--out", str(out)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": path, "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert ran.returncode == 0, ran.stderr
    assert json.loads((out / "config.json").read_text())["machine"]["devices"] == ["cpu: cpu"]  # as the others have it
    found = json.loads((out / "result.json").read_text())
    assert found["failed"] == {}
    assert len(found["speed"]["rows"]) == 2
    for row in found["speed"]["rows"]:
        assert {"full", "scan"} <= set(row["contenders"])
        assert {"cuDNN by jax", "torch.nn"} <= set(row["left_out"])
        assert all(row["left_out"].values())
    assert [point["T"] for point in found["length"]["points"]["full"]] == [3, 40]
    assert found["checkpoint"]["slots"][0]["slots"] == 5
    assert {"full", "scan"} <= set(found["memory"]["peaks"])
    assert {"cuDNN by jax", "torch.nn"} <= set(found["memory"]["left_out"])
