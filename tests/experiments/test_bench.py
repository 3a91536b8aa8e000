"""The command of the benchmark: its quick form from end to end, its tables, and flags that are wrong."""

import json

import jax
import pytest

pytest.importorskip("tyro")
pytest.importorskip("matplotlib")
pytest.importorskip("rich")
pytest.importorskip("sklearn")

from experiments.benchmarks import command, config
from experiments.benchmarks.reporting import report
from experiments.kit import devices, revolve
from experiments.kit.options import BadInputError
from experiments.runner import cli
from experiments.study import Result, silent

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # the peers' own

TINY = [
    "--quick", "--cells", "elman", "--shapes", "4,3,2,3", "1,3,2,3", "--adjoints", "full", "--peers", "scan",
    "--rounds", "2", "--sweep-cell", "elman", "--checkpoint-shape", "2,40,3,3", "--slots", "2", "--lengths", "3", "40",
    "--memory-shape", "4,3,2,3",
]  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bench")
    with jax.enable_x64(False), jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        assert cli.main(["bench", *TINY, "--out", str(folder)]) == 0
    return folder


def test_the_quick_form_runs_end_to_end(folder):
    found = json.loads((folder / "result.json").read_text())
    assert {"speed", "checkpoint", "length", "memory", "marks", "verdict", "circumstances"} <= found.keys()
    first, second = found["speed"]["rows"]
    assert first["shape"] == {"B": 4, "T": 3, "d": 2, "n": 3}
    assert {"full", "scan"} <= first["contenders"].keys()
    one = first["contenders"]["full"]
    assert 0 < one["low_ms"] <= one["median_ms"] <= one["high_ms"]
    assert len(one["times_ms"]) == one["rounds"] == 2
    assert one["over_floor"] == pytest.approx(one["median_ms"] / first["floor_ms"])
    assert 0 <= one["gradient_error"] < 1e-5
    assert "full, split" in second["left_out"]
    assert found["speed"]["geometric_means"]["one"] > 0
    (slots,) = found["checkpoint"]["slots"]
    assert slots["formula"] == slots["steps"] == revolve.steps(40, 2)
    assert {name: [point["T"] for point in points] for name, points in found["length"]["points"].items()} == {
        name: [3, 40] for name in ("full", "full-states", "checkpointed", "scan")
    }
    assert found["memory"]["peaks"]["full"]["peak"] >= found["memory"]["peaks"]["full"]["before"] > 2**20
    assert found["circumstances"]["machine"]["devices"]
    assert {"jax", "torch", "flax"} <= found["circumstances"]["versions"].keys()
    assert "--slots 2" in found["circumstances"]["settings"]
    for name in ("over_floor", "checkpoint", "length"):
        assert (folder / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    assert json.loads((folder / "config.json").read_text())["flags"]["peers"] == ["scan"]


def test_the_tables_are_generated_as_markdown(folder, capsys):
    assert cli.main(["bench", "--markdown", str(folder / "result.json")]) == 0
    out = capsys.readouterr().out
    assert "Versions: python " in out
    assert "| full |" in out
    found = json.loads((folder / "result.json").read_text())
    median = found["speed"]["rows"][0]["contenders"]["scan"]["median_ms"]
    assert f"| scan | {report._ms(median)} (" in out
    for line in out.splitlines():
        if line.startswith("|"):
            assert line.endswith("|")
    with pytest.raises(BadInputError, match="is no result"):
        report.markdown(folder / "config.json")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--shapes", "1,2,3"], "a shape must be four positive integers B,T,d,n such as 64,256,128,32: got `1,2,3`"),
        (["--shapes", "1,2,0,3"], "a shape must be four positive integers B,T,d,n such as"),
        (["--shapes"], "`--shapes` must name something: got nothing"),
        (["--memory-shape", "wide"], "a shape must be four positive integers"),
        (["--cells", "vanilla"], "invalid choice 'vanilla' for argument '--cells'"),
        (["--what", "fame"], "invalid choice 'fame' for argument '--what'"),
        (["--peers", "flaxx"], "`--peers`: there is no `flaxx`: scan, hoisted-scan, nnx, linen, equinox, haiku, torch"),
        (["--adjoints", "fool"], "`--adjoints`: there is no `fool`: full, full-states,"),
        (["--rounds", "0"], "`--rounds` must be at least 1: got 0"),
        (["--seconds", "0"], "`--seconds` must be above 0: got 0.0"),
        (["--slots", "0"], "`--slots` must be above 0: got 0"),
        (["--lengths", "-5"], "`--lengths` must be above 0: got -5"),
        (["--devices", "0"], "`--devices` must be at least 1: got 0"),
        (["--markdown", "nowhere.json"], "`--markdown`: cannot read `nowhere.json`: No such file"),
    ],
)
def test_bad_flags_are_one_clear_line(arguments, message, capsys):
    assert cli.main(["bench", *arguments]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: " + message)
    assert err.count("\n") == 1


def test_devices_that_come_too_late_are_one_clear_line(tmp_path, capsys):
    jax.devices()
    number = len(jax.devices()) + 1
    assert cli.main(["bench", "--devices", str(number), "--out", str(tmp_path)]) == 2
    assert (
        f"error: `--devices` comes too late: JAX has started with {number - 1}, got {number}\n"
        in capsys.readouterr().err
    )


def test_more_devices_than_cores_are_a_warning(monkeypatch, capsys):
    monkeypatch.setattr(command, "_run", lambda *arguments: Result({}, (), {}))
    number = len(jax.devices())
    for cores in (number, number - 1):
        monkeypatch.setattr(devices, "cores", lambda cores=cores: cores)
        command.run(config.Config(devices=number), silent)
        warned = f"warning: {number} devices on {cores} cores take turns\n" in capsys.readouterr().err
        assert warned == (cores < number)


@pytest.mark.parametrize(("platform", "message"), [
    ("cpu", "`--gpu` needs a GPU, and JAX finds only cpu: install jax for yours"),
    ("none", "`--gpu`: JAX can't start its GPU: RuntimeError: "),
])  # fmt: skip
def test_a_machine_without_a_gpu_says_so(platform, message, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("JAX_PLATFORMS", platform)
    assert cli.main(["bench", "--gpu", "--out", str(tmp_path)]) == 2
    err = capsys.readouterr().err.strip()  # the bars of progress, none, end in a line
    assert err.startswith(f"error: {message}")
    assert "\n" not in err
    assert not list(tmp_path.iterdir())
