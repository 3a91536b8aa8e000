"""All studies after an interruption or a failure: what is there is not run again, what is missing is."""

import json

import pytest

pytest.importorskip("tyro")
pytest.importorskip("matplotlib")
pytest.importorskip("rich")
pytest.importorskip("sklearn")

from experiments.kit import trained
from tests.experiments.fake_studies import Fakes, TrainedFlags
from tests.experiments.reports import page, table_of


def test_what_failed_does_not_leave_an_earlier_result(tmp_path, capsys):
    fakes = Fakes(a=None)
    assert fakes.reproduce(tmp_path) == 0
    fakes.errors["a"] = RuntimeError("no")
    assert fakes.reproduce(tmp_path) == 1
    assert not (tmp_path / "a" / "result.json").exists()
    fakes.errors["a"] = None
    assert fakes.reproduce(tmp_path, resume=True) == 0
    assert fakes.names == ["a"]
    assert not (tmp_path / "a" / "error.txt").exists()


def test_an_interruption_stops_and_resume_goes_on(tmp_path, capsys):
    fakes = Fakes(a=None, b=KeyboardInterrupt(), c=None)
    assert fakes.reproduce(tmp_path) == 130
    assert fakes.names == ["a", "b"]
    assert [row[2] for row in table_of(tmp_path)] == ["reproduced", "interrupted", "not run"]
    assert "3 studies: 1 reproduced, 1 interrupted, 1 not run" in page(tmp_path).text
    fakes.errors["b"] = None
    assert fakes.reproduce(tmp_path, resume=True) == 0
    assert fakes.names == ["b", "c"]
    assert [row[2] for row in table_of(tmp_path)] == ["reproduced"] * 3
    assert fakes.reproduce(tmp_path) == 0
    assert fakes.names == ["a", "b", "c"]


def test_an_interrupted_training_says_where_it_is_saved(tmp_path, capsys):
    fakes = Fakes(a=trained.InterruptedRunError("interrupted after step 7, which is saved"), b=None)
    assert fakes.reproduce(tmp_path) == 130
    assert fakes.names == ["a"]
    assert table_of(tmp_path)[0][2] == "interrupted: after step 7, which is saved"
    assert "go on with `python -m experiments reproduce --x --resume`\n" in capsys.readouterr().err


def test_a_killed_process_leaves_a_report(tmp_path, monkeypatch, capsys):
    fakes = Fakes(a=None, b=SystemExit("killed"))
    with pytest.raises(SystemExit):
        fakes.reproduce(tmp_path)
    assert [row[2] for row in table_of(tmp_path)] == ["reproduced", "not run"]


def test_resume_runs_again_what_is_not_the_same_or_not_whole(tmp_path, capsys):
    fakes = Fakes(a=None)

    def ran(**flags):
        assert fakes.reproduce(tmp_path, resume=True, **flags) == 0
        return bool(fakes.ran)

    assert ran()
    assert not ran()
    assert ran(seed=1)
    assert ran(quick=True)
    assert ran()
    config = tmp_path / "a" / "config.json"
    recorded = json.loads(config.read_text())
    recorded["flags"] |= {"data": "elsewhere", "out": "elsewhere"}  # where, not what
    config.write_text(json.dumps(recorded))
    assert not ran()
    recorded["flags"]["size"] += 1
    config.write_text(json.dumps(recorded))
    assert ran()
    for name, content in {"result.json": "{", "config.json": "[]", "tables.json": '{"tables": [1]}'}.items():
        (tmp_path / "a" / name).write_text(content)
        assert ran()
        assert not ran()
    (tmp_path / "a" / "of_a.png").unlink()
    assert ran()


def test_a_training_that_was_cut_off_is_told_to_go_on(tmp_path, capsys):
    fakes = Fakes(a=None)
    fakes.studies = (fakes.study("a", TrainedFlags),)
    assert fakes.reproduce(tmp_path) == 0
    assert not fakes.ran[0][1].resume
    assert fakes.reproduce(tmp_path, resume=True) == 0  # the flag itself makes no difference
    assert fakes.names == []
    assert fakes.reproduce(tmp_path, resume=True, seed=1) == 0
    assert fakes.ran[0][1].resume
