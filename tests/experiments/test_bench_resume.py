"""What the benchmark has measured stays, when a run is cut off and when some of it fails."""

import contextlib
import json
import re
import signal

import jax
import numpy as np
import pytest

pytest.importorskip("tyro")
pytest.importorskip("matplotlib")
pytest.importorskip("rich")
pytest.importorskip("sklearn")

from experiments.benchmarks import command
from experiments.benchmarks.config import Config
from experiments.benchmarks.measuring import attempts, beside, checkpoint, kept, length, long, peak, side_by_side, speed
from experiments.benchmarks.peers import work as works
from experiments.kit import devices, output
from experiments.kit.options import BadInputError
from experiments.runner import cli
from experiments.study import silent

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # the peers' own

TINY = [
    "--quick", "--cells", "elman", "--shapes", "4,3,2,3", "1,3,2,3", "--adjoints", "full", "--peers", "scan",
    "--rounds", "2", "--what", "speed",
]  # fmt: skip


def test_a_wrong_gradient_on_a_gpu_fails_the_run_and_what_is_measured_stays(tmp_path, monkeypatch, capsys):
    """In this process, as if it were the other one."""
    right = speed.row

    def one_is_wrong(*arguments):
        found = right(*arguments)
        return found._replace(left_out=found.left_out | {"full": f"{side_by_side.WRONG}the xs of full"})

    @contextlib.contextmanager
    def here(begin, report):
        yield beside.Beside(lambda function, *arguments: function(*arguments, report), lambda: None)

    monkeypatch.setattr(speed, "row", one_is_wrong)
    monkeypatch.setattr(devices, "gpus", lambda: ["gpu: of another process"])
    monkeypatch.setattr(beside, "beside", here)
    bench = ["bench", "--gpu", *TINY, "--out", str(tmp_path)]
    assert cli.main(bench) == 1
    assert "some of it failed, see above" in capsys.readouterr().err
    found = json.loads((tmp_path / "result.json").read_text())
    assert list(found["failed"].values()) == ["WRONG GRADIENT: the xs of full"] * 2
    assert all(what.endswith(", full") for what in found["failed"])
    assert found["circumstances"]["machine"]["devices"] == ["gpu: of another process"]
    monkeypatch.setattr(speed, "row", right)  # repaired
    assert cli.main([*bench, "--resume"]) == 0
    found = json.loads((tmp_path / "result.json").read_text())
    assert found["failed"] == {}
    assert all("full" in row["contenders"] for row in found["speed"]["rows"])


def test_a_run_that_is_cut_off_goes_on(tmp_path, monkeypatch, capsys):
    measured, row = [], speed.row

    def second_is_interrupted(work, *arguments):
        measured.append(work.shape.B)
        if measured == [4, 1]:
            arguments[-1]("speed, this row: rounds", 0, 1, "full")
            raise KeyboardInterrupt
        return row(work, *arguments)

    monkeypatch.setattr(speed, "row", second_is_interrupted)
    bench = ["bench", *TINY, "--out", str(tmp_path)]
    assert cli.main(bench) == 130
    assert "interrupted; what was measured is saved: go on with `python -m experiments bench" in capsys.readouterr().err
    found = json.loads((tmp_path / "result.json").read_text())
    assert [row["shape"]["B"] for row in found["speed"]["rows"]] == [4]
    assert found["cut_off"]
    (reason,) = found["failed"].items()
    assert reason[0] == "speed, elman 1,3,2,3, and what comes after it"
    assert re.fullmatch(r"not measured: the run was told to end, \d+ s into speed, this row: rounds, full", reason[1])
    assert found["marks"] == []
    (kept_row,) = (tmp_path / "measured").glob("speed*.json")
    before = kept_row.read_bytes()

    assert cli.main(bench) == 2
    assert "holds a run that was cut off: go on with `--resume`, or remove `" in capsys.readouterr().err
    assert cli.main([*bench, "--resume", "--seed", "5"]) == 2
    assert "is of another run, with --seed 0 and not 5: remove it to begin anew" in capsys.readouterr().err
    assert kept_row.read_bytes() == before

    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5")  # another of the same kind
    assert cli.main([*bench, "--resume"]) == 0
    assert measured == [4, 1, 1]  # the first was not measured again
    found = json.loads((tmp_path / "result.json").read_text())
    assert not found["cut_off"]
    assert [row["shape"]["B"] for row in found["speed"]["rows"]] == [4, 1]
    assert "--resume" not in found["circumstances"]["settings"]
    assert not (tmp_path / "measured").exists()
    assert cli.main([*bench, "--resume"]) == 0
    assert "holds nothing to go on with: the run begins" in capsys.readouterr().err
    assert measured == [4, 1, 1, 4, 1]


def terminate():
    signal.raise_signal(signal.SIGTERM)


def test_at_the_end_of_its_time_a_run_writes_what_it_has(tmp_path, monkeypatch):
    before, row = signal.getsignal(signal.SIGTERM), speed.row
    seen = []

    def second_comes_too_late(work, *arguments):
        seen.append(work.shape.B)
        if seen == [4, 1]:
            terminate()
            seen.append("went on")
        return row(work, *arguments)

    monkeypatch.setattr(speed, "row", second_comes_too_late)
    assert cli.main(["bench", *TINY, "--out", str(tmp_path)]) == 130
    assert seen == [4, 1]
    found = json.loads((tmp_path / "result.json").read_text())
    assert [row["shape"]["B"] for row in found["speed"]["rows"]] == [4]
    assert found["cut_off"]
    assert signal.getsignal(signal.SIGTERM) == before


def test_between_two_measurements_the_end_of_its_time_waits_for_the_next(tmp_path):
    store = kept.below(tmp_path, {}, resume=False)
    with attempts.attempts(Config(out=tmp_path), store, silent) as attempt:
        assert attempt.make("a", lambda measure: 1) == 1
        terminate()
        terminate()  # it may come twice
        assert attempt.make("b", lambda measure: 2) is None
        assert attempt.make("a", lambda measure: 3) == 1  # measured before
    assert attempt.cut_off == ["b"]
    assert list(attempt.failed) == ["b, and what comes after it"]
    assert store.get("b") is None


def test_while_files_are_written_nothing_ends_the_run(tmp_path, monkeypatch):
    both = signal.SIGINT, signal.SIGTERM
    write, before = output.write, [signal.getsignal(number) for number in both]

    def disturbed(*arguments):
        for number in both:
            signal.raise_signal(number)
        return write(*arguments)

    monkeypatch.setattr(output, "write", disturbed)
    assert cli.main(["bench", *TINY, "--out", str(tmp_path)]) == 0
    assert len(json.loads((tmp_path / "result.json").read_text())["speed"]["rows"]) == 2
    assert [signal.getsignal(number) for number in both] == before


def test_ctrl_c_twice_keeps_what_was_measured(tmp_path, monkeypatch, capsys):
    def ended(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(command, "draw", ended)
    assert cli.main(["bench", *TINY, "--out", str(tmp_path)]) == 130
    assert "interrupted; what was measured is saved: go on with" in capsys.readouterr().err
    assert len(list((tmp_path / "measured").glob("speed*.json"))) == 2


def test_what_is_kept_comes_back(tmp_path, capsys):
    store = kept.below(tmp_path, {"a": (1, 2)}, resume=False)
    assert store.get("speed, lstm 1,2") is None
    store.put("speed, lstm 1,2", 0.5, ["row"])
    again = kept.below(tmp_path, {"a": [1, 2]}, resume=True)
    assert again.get("speed, lstm 1,2") == (0.5, ["row"])
    assert again.get("speed, lstm 1,3") is None
    with pytest.raises(BadInputError, match="with a \\[1, 2\\] and not 3"):
        kept.below(tmp_path, {"a": 3}, resume=True)
    (damaged,) = (tmp_path / "measured").glob("speed*.json")
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


def test_every_measurement_comes_back_to_the_last_bit(tmp_path):
    """The kinds of `_KINDS`, each with fields of the types that it is measured in."""
    shape, seconds = works.Shape(4, 3, 2, 5), np.array([0.1 + 0.2, np.nan, 1e-300])
    timed = {"full": side_by_side.Timed(seconds, None, 2**40, float(np.float32(0.1)), "ours", False, False)}
    measured = [
        speed.Row("lstm", shape, timed, {"torch.nn": "not installed"}, np.float64(1 / 3), 1e9),
        side_by_side.SideBySide({}, {}, {"step": seconds[:0]}),
        length.At(7, {"scan": length.Point(7, seconds, 0.5, None, 0.0)}, {}),
        long.Row(long.Case("gru", shape, 1), 1, None, 0.25, seconds, 2, 3),
        peak.Peak(1, 2, None, None),
        "left out: too large",
    ]
    store = kept.below(tmp_path, {}, resume=False)
    for k, one in enumerate(measured):
        store.put(f"what {k}", 0.1 * k, one)
        (took, again), before = store.get(f"what {k}"), one
        assert took == 0.1 * k
        assert jax.tree.structure(again) == jax.tree.structure(before)  # the kinds are part of it
        for left, right in zip(jax.tree.leaves(again), jax.tree.leaves(before), strict=True):
            np.testing.assert_array_equal(left, right)
    assert not list(tmp_path.rglob("*.pickle"))
    with pytest.raises(TypeError, match="`Slots` is no measurement that can be kept"):
        store.put("other", 0.0, checkpoint.Slots(1, seconds, None, 1, 1, 1, 0.0))
