"""A run of the benchmark that nobody watches: what hangs, what ends the process, what is cut off."""

import collections
import contextlib
import functools
import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest

pytest.importorskip("tyro")
pytest.importorskip("matplotlib")
pytest.importorskip("rich")
pytest.importorskip("sklearn")

from experiments import cli
from experiments.benchmarks import attempts, beside, contenders, kept, speed
from experiments.benchmarks import work as works
from experiments.benchmarks.contender import Contender
from experiments.options import BadInputError

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # the peers' own

ROOT = pathlib.Path(__file__).parents[2]
WORK = works.make("elman", works.Shape(B=4, T=5, d=2, n=3))


# What the process beside calls: by name, so of a module.


def nothing():
    pass


def answers(value, report):
    report("stage", 1, 2, "halfway")
    return value, os.getpid()


def raises(report):
    raise ZeroDivisionError("of the other process")


def aborts(report):
    report("stage", 0, 1, "the culprit")
    os.abort()


def exits(report):
    os._exit(3)


def hangs(report):
    report("stage", 0, 1, "the sleeper")
    time.sleep(1000)


def says_who_and_hangs(report):
    report("stage", 0, 1, str(os.getpid()))
    time.sleep(1000)


def cannot_be_sent(report):
    return lambda: None


def build_and_abort(work):
    os.abort()


ABORTS = Contender("aborts", "jax", build_and_abort, flag="aborts")
SCAN = contenders.PEERS[0]
TINY = [
    "--quick", "--cells", "elman", "--shapes", "4,3,2,3", "1,3,2,3", "--adjoints", "full", "--peers", "scan",
    "--rounds", "2", "--what", "speed",
]  # fmt: skip


def test_what_fails_or_ends_the_process_or_hangs_is_told_apart_and_the_next_is_measured():
    told = []
    with beside.beside(nothing, lambda *progress: told.append(progress), silence=20.0) as measure:
        value, process = measure(answers, 5)
        assert measure(answers, [6]) == ([6], process)  # the same process while all goes well
        assert (value, told[0]) == (5, ("stage", 1, 2, "halfway"))
        assert process != os.getpid()
        for function, message, at in (
            (raises, "ZeroDivisionError: of the other process", ""),
            (cannot_be_sent, "lambda", ""),
            (aborts, "its process was ended by SIGABRT", "the culprit"),
            (exits, "its process ended with status 3", ""),
        ):
            with pytest.raises(beside.LostError, match=message) as caught:
                measure(function)
            assert caught.value.at == at
            value, another = measure(answers, 7)
            assert (value, another != process) == (7, True)  # after a failure a new one
            process = another
    with beside.beside(nothing, lambda *progress: None, silence=5.0) as measure:
        with pytest.raises(beside.LostError, match="no sign of life for 5 seconds") as caught:
            measure(hangs)
        assert caught.value.at in ("the sleeper", "")  # "" where the machine took 5 seconds to start it


def test_the_process_beside_ends_with_the_one_that_is_killed():
    """Also while it hangs. The test waits for the end of a pipe that both hold."""
    script = (
        "from experiments.benchmarks import beside\n"
        "from tests.experiments import test_bench_attempts as given\n"
        "with beside.beside(given.nothing, lambda *progress: print(progress[-1], flush=True)) as measure:\n"
        "    measure(given.says_who_and_hangs)\n"
    )
    with subprocess.Popen([sys.executable, "-c", script], cwd=ROOT, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        parent.kill()
        try:
            parent.communicate(timeout=60)  # returns when nobody holds the other end
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)


def cannot_begin():
    raise OSError("CUDA_ERROR_DEVICE_UNAVAILABLE")


def test_why_a_process_cannot_begin_is_said():
    with beside.beside(cannot_begin, lambda *progress: None) as measure:
        for _ in range(2):
            with pytest.raises(beside.LostError, match="OSError: CUDA_ERROR_DEVICE_UNAVAILABLE"):
                measure(answers, 1)


def test_a_reference_that_cannot_be_had_is_nobodys_fault(monkeypatch):
    def dies(work, reset_before=False):
        raise SystemError("at this shape")

    reports = []
    monkeypatch.setattr(speed.plain, "reference", dies)
    row = speed.row(WORK, (SCAN,), 1, 0.01, lambda *progress: reports.append(progress))
    assert reports[0] == ("speed: the reference of this row", 0, 1)
    assert row.left_out == {"scan": "nothing to check it against: at this shape"}


def test_a_process_that_never_begins_is_given_up_however_much_it_is_to_be_sent():
    """Sending more than a pipe holds would wait for it."""
    never = functools.partial(time.sleep, 1000)
    with (
        beside.beside(never, lambda *progress: None, silence=1.0) as measure,
        pytest.raises(beside.LostError, match="no sign of life for 1 seconds"),
    ):
        measure(answers, np.zeros(10**7))


def test_who_ends_the_process_is_left_out_and_the_others_are_measured():
    with beside.beside(nothing, lambda *progress: None) as measure:
        row = attempts.row(measure, WORK, (ABORTS, SCAN), 1, 0.01, lost := collections.Counter())
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
    with beside.beside(nothing, lambda *progress: None) as measure:
        for seen in (1, 2, 2):
            row = attempts.row(measure, WORK, (fails, SCAN), 2, 0.01, lost)
            assert list(row.timed) == ["scan"]
            assert lost == {"fails": seen}
            reasons.append(row.left_out["fails"])
    assert reasons == [*["MemoryError: of the device"] * 2, "ended two rows before"]


def test_an_error_that_stays_is_blamed_on_whom_it_began_with(monkeypatch):
    """The device computes no more after the first; who comes after it isn't asked in this process."""

    def lost(value):
        raise ValueError("CUDA_ERROR_ILLEGAL_ADDRESS")

    reports = []
    monkeypatch.setattr(speed.jax, "block_until_ready", lost)
    broken = Contender("broken", "jax", Works(0), flag="broken")
    with pytest.raises(RuntimeError, match="CUDA_ERROR_ILLEGAL_ADDRESS; and the device computes no more"):
        speed.row(WORK, (broken, SCAN), 1, 0.01, lambda *progress: reports.append(progress))
    assert reports[-1][-1] == "broken"


def test_a_wrong_gradient_on_a_gpu_fails_the_run_and_what_is_measured_stays(tmp_path, monkeypatch, capsys):
    """In this process, as if it were the other one."""
    row = speed.row

    def one_is_wrong(*arguments):
        found = row(*arguments)
        return found._replace(left_out=found.left_out | {"full": f"{speed.WRONG}the xs of full"})

    @contextlib.contextmanager
    def here(begin, report):
        yield lambda function, *arguments: function(*arguments, report)

    monkeypatch.setattr(speed, "row", one_is_wrong)
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    monkeypatch.setattr(beside, "beside", here)
    assert cli.main(["bench", "--gpu", *TINY, "--out", str(tmp_path)]) == 1
    assert "some of it failed, see above" in capsys.readouterr().err
    failed = json.loads((tmp_path / "result.json").read_text())["failed"]
    assert failed["speed, elman 4,3,2,3, full"] == "WRONG GRADIENT: the xs of full"
    assert len(failed) == 2
    monkeypatch.setattr(speed, "row", row)  # repaired
    assert cli.main(["bench", "--gpu", *TINY, "--resume", "--out", str(tmp_path)]) == 0
    found = json.loads((tmp_path / "result.json").read_text())
    assert found["failed"] == {}
    assert all("full" in row["contenders"] for row in found["speed"]["rows"])


def test_a_row_is_lost_when_nobody_knows_who_ended_it():
    def measure(function, *arguments):
        raise beside.LostError("its process was ended by SIGKILL", "")

    with pytest.raises(beside.LostError):
        attempts.row(measure, WORK, (SCAN,), 1, 0.01, collections.Counter())


def test_a_run_that_is_cut_off_goes_on(tmp_path, monkeypatch, capsys):
    measured, row = [], speed.row

    def second_is_interrupted(work, *arguments):
        measured.append(work.shape.B)
        if measured == [4, 1]:
            raise KeyboardInterrupt
        return row(work, *arguments)

    monkeypatch.setattr(speed, "row", second_is_interrupted)
    bench = ["bench", *TINY, "--out", str(tmp_path)]
    assert cli.main(bench) == 130
    assert "interrupted; what was measured is saved: go on with `python -m experiments bench" in capsys.readouterr().err
    assert not (tmp_path / "result.json").exists()
    (kept_row,) = (tmp_path / "measured").glob("*.pickle")
    before = kept_row.read_bytes()

    assert cli.main(bench) == 2
    assert "holds a run that was cut off: go on with `--resume`, or remove `" in capsys.readouterr().err
    assert cli.main([*bench, "--resume", "--seed", "5"]) == 2
    assert "is of another run, with --seed 0 and not 5: remove it to begin anew" in capsys.readouterr().err
    assert kept_row.read_bytes() == before

    assert cli.main([*bench, "--resume"]) == 0
    assert measured == [4, 1, 1]  # the first was not measured again
    found = json.loads((tmp_path / "result.json").read_text())
    assert [row["shape"]["B"] for row in found["speed"]["rows"]] == [4, 1]
    assert "--resume" not in found["circumstances"]["settings"]
    assert not (tmp_path / "measured").exists()
    assert cli.main([*bench, "--resume"]) == 0
    assert "holds nothing to go on with: the run begins" in capsys.readouterr().err
    assert measured == [4, 1, 1, 4, 1]


def test_what_is_kept_comes_back(tmp_path, capsys):
    store = kept.below(tmp_path, {"a": (1, 2)}, resume=False)
    assert store.get("speed, lstm 1,2") is None
    store.put("speed, lstm 1,2", 0.5, ["row"])
    again = kept.below(tmp_path, {"a": [1, 2]}, resume=True)
    assert again.get("speed, lstm 1,2") == (0.5, ["row"])
    assert again.get("speed, lstm 1,3") is None
    with pytest.raises(BadInputError, match="with a \\[1, 2\\] and not 3"):
        kept.below(tmp_path, {"a": 3}, resume=True)
    (damaged,) = (tmp_path / "measured").glob("*.pickle")
    damaged.write_bytes(damaged.read_bytes()[:9])
    assert again.get("speed, lstm 1,2") is None
    assert "is damaged, and is measured again" in capsys.readouterr().err
    (tmp_path / "measured" / "about.json").write_text("")
    with pytest.raises(BadInputError, match=r"about.json` is damaged: remove"):
        kept.below(tmp_path, {"a": 1}, resume=True)
    store.put("speed, lstm 1,2", 0.5, ["row"])
    (tmp_path / "measured" / "about.json").unlink()
    assert kept.below(tmp_path, {"a": 3}, resume=False).get("speed, lstm 1,2") is None  # of whichever run that was
    kept.forget(tmp_path)
    kept.forget(tmp_path)
    assert not list(tmp_path.iterdir())


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
