"""A trained study that is interrupted and gone on with gives the numbers of one that was left alone."""

import contextlib
import json
import pathlib
import shlex
import signal

import pytest

pytest.importorskip("tyro")
pytest.importorskip("matplotlib")
pytest.importorskip("rich")
pytest.importorskip("sklearn")
pytest.importorskip("orbax.checkpoint")
pytest.importorskip("tensorboardX")

from experiments.kit import signals
from experiments.runner import cli, terminal

TINY = shlex.split("run digits --quick --epochs=4 --hidden-size=6 --rounds=1 --batch-size=200 --cell=elman --seed=1")
TINY.append("--out")


def run(folder, *flags):
    return cli.main([*TINY, str(folder), *flags])


def numbers(folder):
    found = json.loads((folder / "result.json").read_text())
    del found["timing"]
    return found


@pytest.fixture
def interrupt(monkeypatch):
    """Ctrl-C after so many steps of a training, as the terminal sends it."""

    def at(step):
        @contextlib.contextmanager
        def progress():
            def report(stage, done, total, note=""):
                if stage.startswith("training") and done >= step:
                    assert note.startswith("loss ")
                    signal.raise_signal(signal.SIGINT)

            yield report

        monkeypatch.setattr(terminal, "progress", progress)

    return at


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    import jax

    folder = tmp_path_factory.mktemp("undisturbed") / "out"
    with jax.enable_x64(False), jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        assert run(folder, "--tensorboard") == 0
    return folder


def test_a_run_leaves_its_metrics_and_no_checkpoints(undisturbed):
    assert {path.name for path in (undisturbed / "training").iterdir()} == {"metrics.jsonl", "events"}
    lines = [json.loads(line) for line in (undisturbed / "training" / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [7, 14, 21, 28]
    assert [line["test_accuracy"] for line in lines] == numbers(undisturbed)["curves"]["test_accuracy"]


def test_ctrl_c_saves_says_how_to_go_on_and_resume_gives_the_same(
    undisturbed, tmp_path, interrupt, capsys, monkeypatch
):
    folder = tmp_path / "out"
    before = signal.getsignal(signal.SIGINT)
    interrupt(14)
    with monkeypatch.context():
        assert run(folder) == 130
    err = capsys.readouterr().err
    command = f"python -m experiments {' '.join(TINY)} {folder} --resume"
    assert err.endswith(f"interrupted after step 14, which is saved: go on with `{command}`\n")
    assert not (folder / "result.json").exists()
    assert signal.getsignal(signal.SIGINT) is before

    assert run(folder) == 2  # what is there is not overwritten by mistake
    assert "holds a run that was cut off: go on with `--resume`" in capsys.readouterr().err
    assert run(folder, "--resume", "--learning-rate=0.5") == 2
    assert "is of another run: learning_rate=0.01 there, 0.5 here" in capsys.readouterr().err
    interrupt(21)  # and once more, out of the resumed one
    assert run(folder, "--resume") == 130
    capsys.readouterr()

    newest = max((folder / "training" / "checkpoints").iterdir()) / "state" / "_METADATA"
    newest.write_bytes(newest.read_bytes()[:-1])
    monkeypatch.undo()
    assert run(folder, "--resume") == 0
    out, err = capsys.readouterr()
    assert "warning: checkpoints in" in err
    assert "that of step 21 is refused" in err
    assert "14 steps in" in out
    assert numbers(folder) == numbers(undisturbed)
    kept = [path / "training" / "metrics.jsonl" for path in (folder, undisturbed)]
    assert kept[0].read_bytes() == kept[1].read_bytes()
    assert not (folder / "training" / "checkpoints").exists()


def test_ctrl_c_after_the_training_says_that_it_is_kept(undisturbed, tmp_path, capsys, monkeypatch):
    """While gradients are checked or times taken nothing is trained, but a training is there to be gone on with."""

    @contextlib.contextmanager
    def progress():
        def report(stage, done, total, note=""):
            if stage == "checking gradients":
                signal.raise_signal(signal.SIGINT)

        yield report

    # A shell that runs the tests in the background has Ctrl-C ignored in all of them.
    with signals.answered({signal.SIGINT: signal.default_int_handler}), monkeypatch.context() as patch:
        patch.setattr(terminal, "progress", progress)
        assert run(tmp_path) == 130
    command = f"python -m experiments {' '.join(TINY)} {tmp_path} --resume"
    assert f"interrupted; what a training had saved is there: go on with `{command}`\n" in capsys.readouterr().err
    assert run(tmp_path, "--resume") == 0
    assert numbers(tmp_path) == numbers(undisturbed)


def test_resume_without_anything_to_resume_begins(tmp_path, interrupt, capsys):
    theirs = tmp_path / "training" / "checkpoints of theirs"
    theirs.mkdir(parents=True)
    interrupt(7)
    assert run(tmp_path, "--resume") == 130
    err = capsys.readouterr().err
    assert "holds nothing to go on with: the run begins" in err
    assert "interrupted after step 7, which is saved" in err
    assert err.count("--resume") == 1
    assert theirs.exists()


def test_a_disk_that_refuses_is_one_clear_line(tmp_path, capsys):
    (tmp_path / "training").write_text("")
    assert run(tmp_path) == 2
    err = capsys.readouterr().err
    assert "error: [Errno 20] Not a directory: " in err
    assert "Traceback" not in err


def test_without_a_folder_nothing_is_written_and_ctrl_c_is_as_ever(tmp_path, monkeypatch):
    from experiments.studies.digits import study as digits

    monkeypatch.chdir(tmp_path)
    config = digits.Config(epochs=4, hidden_size=6, rounds=1, batch_size=200, cell="elman")

    def report(stage, done, total, note=""):
        signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        digits.run(config, report)
    assert not list(pathlib.Path().iterdir())
