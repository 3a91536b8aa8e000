"""All studies and one report: which run, with which configuration, and that nothing is lost by a failure."""

import json
from pathlib import Path

import pytest

pytest.importorskip("tyro")
pytest.importorskip("matplotlib")
pytest.importorskip("rich")
pytest.importorskip("sklearn")

from experiments.catalogue import STUDIES
from experiments.kit import output
from experiments.kit.options import BadInputError, NoDataError
from experiments.runner import cli, reproduce
from tests.experiments.fake_studies import REASON, Fakes, Flags, NoFileFlags
from tests.experiments.reports import page, table_of


def test_all_run_and_a_verdict_is_a_result_not_an_error(tmp_path, capsys):
    fakes = Fakes(better=None, worse=None)
    assert fakes.reproduce(tmp_path, seed=3, quick=True) == 0
    assert fakes.ran == [(name, Flags(3, True, tmp_path / name, 2)) for name in ("better", "worse")]
    recorded = json.loads((tmp_path / "worse" / "config.json").read_text())
    command = f"python -m experiments run worse --quick --seed 3 --out {tmp_path / 'worse'}"
    assert recorded["command"] == command
    assert 0 < recorded["seconds"] < 10
    out = capsys.readouterr().out
    assert f"worse: not judged: a quick run, in which {REASON}. The full run gives the verdict (" in out
    assert f"2 studies: 2 not judged\nwrote {tmp_path}/report.md\nwrote {tmp_path}/report.html\n" in out
    assert fakes.reproduce(tmp_path, seed=3) == 0
    assert f"worse: not reproduced: {REASON} (" in capsys.readouterr().out
    assert not list(tmp_path.rglob("*.part"))


def test_the_configuration_is_the_one_that_run_would_use():
    for study in STUDIES:
        for flags in ([], ["--quick"]):
            config = reproduce.Config(seed=5, quick=bool(flags), out=Path("results"), only=(study.name,))
            ((chosen, own),) = reproduce.chosen(config, STUDIES)
            assert chosen is study
            assert own == cli._config(study, [*flags, "--seed", "5", "--out", f"results/{study.name}"])


def test_a_failure_loses_no_other_study(tmp_path, capsys):
    fakes = Fakes(a=None, b=ZeroDivisionError("<b>nought</b>\nand more"), c=BadInputError("no data"), d=None)
    assert fakes.reproduce(tmp_path) == 1
    assert fakes.names == ["a", "b", "c", "d"]
    verdicts = [row[2] for row in table_of(tmp_path)]
    assert verdicts == ["reproduced", "failed: ZeroDivisionError: &lt;b>nought&lt;/b>", "failed: no data", "reproduced"]
    assert "raise error" in (tmp_path / "b" / "error.txt").read_text()
    assert not (tmp_path / "c" / "error.txt").exists()  # the line says all
    text = page(tmp_path).text
    assert "4 studies: 2 reproduced, 2 failed" in text
    assert text.count("Traceback (most recent call last)") == 1
    assert "<b>nought</b>\nand more" in text


def test_a_study_without_its_data_is_not_run_and_says_why(tmp_path, capsys):
    fakes = Fakes(a=NoDataError("cannot download it: give `--data PATH`\nand more"), b=None)
    assert fakes.reproduce(tmp_path) == 1
    assert fakes.names == ["a", "b"]
    assert [row[2] for row in table_of(tmp_path)] == [
        r"not run: cannot download it: give \`--data PATH\`",
        "reproduced",
    ]
    assert not (tmp_path / "a" / "error.txt").exists()
    text = page(tmp_path).text
    assert "2 studies: 1 reproduced, 1 not run" in text
    assert "○\xa0not run: cannot download it: give `--data PATH`" in text
    fakes.errors["a"] = None
    assert fakes.reproduce(tmp_path, resume=True) == 0
    assert fakes.names == ["a"]


def test_data_go_to_the_studies_that_read_a_file(tmp_path, capsys):
    fakes, data = Fakes(a=None, b=None), tmp_path / "the data"
    fakes.studies = (fakes.study("a"), fakes.study("b", NoFileFlags))
    assert fakes.reproduce(tmp_path, data=data) == 0
    assert fakes.ran == [("a", Flags(0, False, tmp_path / "a", 4, data)), ("b", NoFileFlags(0, False, tmp_path / "b"))]
    commands = [json.loads((tmp_path / name / "config.json").read_text())["command"] for name in "ab"]
    assert commands[0].endswith(f" --data '{data}'")
    assert "--data" not in commands[1]
    assert fakes.reproduce(tmp_path, resume=True) == 0  # where the file lies makes no difference
    assert fakes.names == []
    with pytest.raises(BadInputError, match="`--data`: none of b reads a file"):
        fakes.reproduce(tmp_path, data=data, only=("b",))


def test_a_wrong_gradient_says_so(tmp_path, capsys):
    from jaxbptt.checking import GradientMismatchError

    assert Fakes(a=GradientMismatchError("W_h is off\nby much")).reproduce(tmp_path) == 1
    assert table_of(tmp_path)[0][2] == "failed: WRONG GRADIENT: W_h is off"


def test_only_in_the_order_of_the_catalogue_and_each_once(tmp_path, capsys):
    fakes = Fakes(a=None, b=None, c=None)
    assert fakes.reproduce(tmp_path, only=("c", "a", "c")) == 0
    assert fakes.names == ["a", "c"]
    assert [row[0] for row in table_of(tmp_path)] == ["`a`", "`c`"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "c", "report.html", "report.md"]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--only", "digit"], "`--only`: there is no study `digit`: a are there"),
        (["--only"], "`--only` needs the name of a study"),
        (["--seed", "-1"], "`--seed` must be from 0 to 4294967295: got -1"),
        (["--seed", "many"], "Error parsing --seed: invalid literal for int()"),
        (["--fast"], "Unrecognized options: --fast"),
        (["--out", __file__], "cannot write to the output folder"),
    ],
)
def test_bad_input_is_one_clear_line_before_any_work(flags, message, monkeypatch, capsys, tmp_path):
    fakes = Fakes(a=None)
    monkeypatch.setattr("experiments.catalogue.STUDIES", fakes.studies)
    monkeypatch.chdir(tmp_path)
    assert cli.main(["reproduce", *flags]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: " + message)
    assert err.count("\n") == 1
    assert fakes.ran == []


def test_a_full_disk_is_one_clear_line(monkeypatch, capsys, tmp_path):
    fakes, save = Fakes(a=None), output.save

    def full(path, content):
        if path.name == "report.html":
            raise OSError(28, "No space left on device")
        save(path, content)

    monkeypatch.setattr(output, "save", full)
    monkeypatch.setattr("experiments.catalogue.STUDIES", fakes.studies)
    assert cli.main(["reproduce", "--out", str(tmp_path)]) == 2
    assert capsys.readouterr().err == f"error: cannot write `{tmp_path}/report.html`: No space left on device\n"
