"""The study to copy keeps what each study promises: its command runs, flags are refused, and its verdict can fail."""

import dataclasses
import json

import pytest

pytest.importorskip("tyro")
pytest.importorskip("matplotlib")
pytest.importorskip("rich")
pytest.importorskip("sklearn")

from experiments.catalogue import STUDIES
from experiments.kit.options import BadInputError
from experiments.runner import cli
from experiments.study import silent
from tests.skeletons import study

EVERY = (*STUDIES, study.STUDY)


@pytest.mark.parametrize("one", EVERY, ids=lambda one: one.name)
def test_a_study_has_what_the_runner_asks_for(one):
    fields = {field.name: field for field in dataclasses.fields(one.config)}
    assert {"seed", "quick", "out"} <= fields.keys()
    assert (one.config().seed, one.config().quick, one.config().out) == (0, False, None)
    assert one.config.__dataclass_params__.frozen
    assert one.quick.keys() <= fields.keys() - {"seed", "quick", "out"}
    assert one.config(quick=True, **one.quick) != one.config(quick=True)
    assert "\n" not in one.claim
    assert len(one.claim) < 160


def test_it_runs_from_the_command_line(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("experiments.catalogue.STUDIES", EVERY)
    assert cli.main(["run", "skeleton", "--quick", "--seed", "4", "--out", str(tmp_path)]) == 0
    found = json.loads((tmp_path / "result.json").read_text())
    assert "the claim holds" in found["verdict"]
    assert found["published"] == study.PUBLISHED
    for decay, gain in found["gains"].items():
        assert gain == pytest.approx(float(decay) ** 10, rel=1e-12)
    assert (tmp_path / "skeleton.png").read_bytes().startswith(b"\x89PNG")
    assert "λ^T" in capsys.readouterr().out


def test_a_full_run_is_judged_and_the_verdict_can_fail():
    assert study.run(study.Config(decays=(0.5,), steps=3), silent).numbers["verdict"] == "reproduced"
    assert study.judge({0.5: 0.126, 0.9: 0.9**3}, 3) == "not reproduced: λ = 0.5 is off by 8.0e-03"


def test_flags_that_make_no_sense_are_refused():
    for flags, message in (
        ({"steps": 0}, "`--steps` must be at least 1: got 0"),
        ({"decays": ()}, "`--decays` must be above 0: got nothing"),
        ({"seed": 2**32}, "`--seed` must be from 0 to 4294967295: got 4294967296"),
    ):
        with pytest.raises(BadInputError) as refused:
            study.Config(**flags)
        assert str(refused.value) == message
