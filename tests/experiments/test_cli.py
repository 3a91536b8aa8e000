import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("tyro")
pytest.importorskip("matplotlib")
pytest.importorskip("rich")
pytest.importorskip("sklearn")

from experiments.benchmarks.config import Config
from experiments.catalogue import STUDIES
from experiments.kit import options, output
from experiments.runner import cli, reproduce
from experiments.studies.digits import task

ROOT = Path(__file__).parents[2]
TINY = {
    "curse_of_memory": "--quick --sequences=8 --lambdas 0.5",
    "copy_memory": "--quick --seeds=2 --delays 2 --hidden-size=3 --unitary-hidden-size=4 --updates=4 --every=2"
    " --test-size=8 --batch-size=4",
}


def numbers(folder):
    return json.loads((folder / "result.json").read_text())


def module(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "experiments", *arguments], cwd=ROOT, capture_output=True, text=True, timeout=120
    )


def test_without_a_command_the_studies_are_listed_one_line_each():
    ran = module()
    assert ran.returncode == 0
    assert ran.stderr == ""
    assert [line.split()[0] for line in ran.stdout.splitlines()] == [study.name for study in STUDIES]
    assert all(study.claim in line for study, line in zip(STUDIES, ran.stdout.splitlines(), strict=True))


def test_a_reader_who_has_enough_is_no_error():
    """As ``python -m experiments list | head -0``: the pipe is closed before anything is said."""
    end, start = os.pipe()
    os.close(end)
    command = [sys.executable, "-m", "experiments", "list"]
    with os.fdopen(start, "w") as nobody:
        ran = subprocess.run(command, cwd=ROOT, stdout=nobody, stderr=subprocess.PIPE, text=True, timeout=120)
    assert (ran.returncode, ran.stderr) == (141, "")


def test_bad_input_ends_the_process_with_status_2_and_no_traceback():
    ran = module("run", "digits", "--epochs", "-3")
    assert ran.returncode == 2
    assert ran.stdout == ""
    assert ran.stderr == "error: `--epochs` must be at least 1: got -3\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["rum"], "there is no command `rum`: list, run, bench, reproduce are"),
        (["list", "digits"], "`list` takes no arguments: got `digits`"),
        (["run"], "`run` needs the name of a study: "),
        (["run", "--help"], "`run --help` needs a study before `--help`: "),
        (["run", "digit"], "there is no study `digit`: "),
        (["run", "digits", "--cell", "lst"], "invalid choice 'lst' for argument '--cell'"),
        (["run", "digits", "--epochs", "many"], "Error parsing --epochs: invalid literal for int()"),
        (["run", "digits", "--epoch", "3"], "Unrecognized options: --epoch"),
        (["run", "digits", "--hidden-size", "0"], "`--hidden-size` must be at least 1: got 0"),
        (["run", "digits", "--learning-rate", "nan"], "`--learning-rate` must be above 0: got nan"),
        (["run", "digits", "--shift", "9"], "`--shift` must lie between -1 and 8: got 9"),
        (["run", "digits", "--out", ""], "`--out` needs a value: got an empty one"),
        (["reproduce", "--out="], "`--out` needs a value: got an empty one"),
        (["run", "vanishing_exploding", "--rhos", "0.5", "-1"], "`--rhos` must be above 0: got 0.5, -1.0"),
        (["run", "vanishing_exploding", "--rhos"], "`--rhos` must be above 0: got nothing"),
        (["run", "vanishing_exploding", "--eigenvalue", "1.2"], "`--eigenvalue` must lie between 0 and 1: got 1.2"),
    ],
)
def test_bad_input_is_one_clear_line(arguments, message, capsys):
    assert cli.main(arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: " + message)
    assert err.count("\n") == 1


def test_a_seed_that_no_library_takes_is_refused_by_every_study():
    for config in (*(study.config for study in STUDIES), reproduce.Config, Config):
        for seed in (-1, 2**32, 99999999999999999999999):
            with pytest.raises(options.BadInputError, match=f"^`--seed` must be from 0 to 4294967295: got {seed}$"):
                config(seed=seed)
        assert config(seed=2**32 - 1).seed == 2**32 - 1


def test_the_largest_seed_splits_the_digits_too():
    assert task.digits(2**32 - 1).test_labels.shape == (360,)


def test_too_large_a_batch_is_one_clear_line(tmp_path, capsys):
    assert cli.main(["run", "digits", "--batch-size", "5000", "--out", str(tmp_path)]) == 2
    assert "error: `--batch-size` must be at most 1437: got 5000\n" in capsys.readouterr().err


def test_a_folder_that_cannot_be_written_is_found_before_the_run(tmp_path, capsys):
    occupied = tmp_path / "file"
    occupied.write_text("")
    for folder in (occupied, occupied / "below"):
        assert cli.main(["run", "digits", "--out", str(folder)]) == 2
        err = capsys.readouterr().err
        assert err.startswith(f"error: cannot write to the output folder `{folder}`: ")
        assert err.count("\n") == 1


def test_two_runs_in_one_folder_are_refused(tmp_path, capsys):
    """The second one, before it writes; the first one's end lets the next run."""
    run = ["run", "curse_of_memory", *TINY["curse_of_memory"].split(), "--out", str(tmp_path)]
    with output.alone(tmp_path):
        for command in (run, ["reproduce", "--quick", "--only", "cliff", "--out", str(tmp_path)]):
            assert cli.main(command) == 2
            said = f"error: another run writes to the output folder `{tmp_path}`: wait for its end, or give `--out`\n"
            assert capsys.readouterr().err.endswith(said)
        assert not list(tmp_path.iterdir())
    assert cli.main(run) == 0


def test_missing_packages_are_named_with_the_remedy(monkeypatch, capsys):
    find = options.importlib.util.find_spec
    monkeypatch.setattr(options.importlib.util, "find_spec", lambda name: None if name == "sklearn" else find(name))
    assert cli.main([]) == 2
    assert capsys.readouterr().err == "error: scikit-learn not installed: run `pip install -e '.[experiments]'`\n"


def test_a_wrong_gradient_ends_with_status_1(monkeypatch, tmp_path, capsys):
    def run(config, report):
        from jaxbptt.checking import GradientMismatchError

        raise GradientMismatchError("W_h is off")

    monkeypatch.setattr("experiments.catalogue.STUDIES", (STUDIES[0]._replace(run=run),))
    assert cli.main(["run", STUDIES[0].name, "--out", str(tmp_path)]) == 1
    assert "WRONG GRADIENT: W_h is off\n" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_help(capsys):
    assert cli.main(["--help"]) == 0
    assert capsys.readouterr().out.startswith("usage: python -m experiments")
    assert cli.main(["run", "digits", "--quick", "--help"]) == 0
    assert "(default: 14)" in capsys.readouterr().out  # the epochs of a quick run


def test_quick_defaults_are_flags_and_give_way_to_flags():
    for k, study in enumerate(STUDIES):
        assert cli._config(study, []) == study.config()  # as the README's first line has it
        assert cli._config(study, ["--quick"]) == study.config(quick=True, **study.quick)
        name, value = next(iter(study.quick.items()))
        flag = "--" + name.replace("_", "-")
        last = k % 2  # before or after the flag: taken in turns
        order = [flag, str(value + 1)] if last else ["--quick", flag, str(value + 1)]
        assert getattr(cli._config(study, [*order, *["--quick"] * last]), name) == value + 1


@pytest.mark.parametrize("study", [study for study in STUDIES if study.name in TINY], ids=lambda study: study.name)
def test_the_command_in_config_json_gives_the_same_flags_and_numbers_again(study, tmp_path, capsys):
    """With and without training; studies that are cut off and gone on with show the same in their own files."""
    flags = TINY[study.name].split()
    first, second = tmp_path / "first", tmp_path / "second"
    assert cli.main(["run", study.name, *flags, "--seed", "3", "--out", str(first)]) == 0
    recorded = json.loads((first / "config.json").read_text())
    *command, folder = shlex.split(recorded["command"].removeprefix("python -m experiments "))
    assert folder == str(first)
    assert cli.main([*command, str(second)]) == 0
    repeated = json.loads((second / "config.json").read_text())
    assert recorded["flags"] | {"out": None} == repeated["flags"] | {"out": None}
    assert recorded["flags"]["seed"] == 3
    assert recorded["flags"]["quick"] is True
    assert numbers(first) == numbers(second)
    assert not list(tmp_path.rglob("*.part"))
    assert study.config(**{k: tuple(v) if isinstance(v, list) else v for k, v in recorded["flags"].items()})
    assert {"python", "jax", "optax", "jaxbptt"} <= recorded["versions"].keys()
    assert recorded["machine"]["devices"]
    assert recorded["date"]


def test_another_seed_gives_other_numbers(tmp_path, capsys):
    for seed in ("0", "1"):
        flags = [*TINY["curse_of_memory"].split(), "--seed", seed, "--out", str(tmp_path / seed)]
        assert cli.main(["run", "curse_of_memory", *flags]) == 0
    assert numbers(tmp_path / "0") != numbers(tmp_path / "1")
