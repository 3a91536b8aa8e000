"""What the benchmark has measured stays, when a run is cut off and when some of it fails."""

import contextlib
import json

import jax
import pytest

pytest.importorskip("tyro")
pytest.importorskip("matplotlib")
pytest.importorskip("rich")
pytest.importorskip("sklearn")

from experiments import cli
from experiments.benchmarks import beside, kept, speed
from experiments.options import BadInputError

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # the peers' own

TINY = [
    "--quick", "--cells", "elman", "--shapes", "4,3,2,3", "1,3,2,3", "--adjoints", "full", "--peers", "scan",
    "--rounds", "2", "--what", "speed",
]  # fmt: skip


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
