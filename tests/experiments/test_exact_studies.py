"""The studies of exact statements alike: their quick forms from end to end, their flags and configurations."""

import dataclasses

import pytest

pytest.importorskip("tyro")
pytest.importorskip("matplotlib")
pytest.importorskip("rich")
pytest.importorskip("sklearn")

from experiments.runner import cli
from experiments.studies import curse_of_memory, jacobian_bound, lyapunov
from experiments.studies.checkpoint_cost import study as checkpoint_cost
from experiments.studies.cliff import study as cliff

EXACT = (jacobian_bound, cliff, lyapunov, curse_of_memory, checkpoint_cost)


@pytest.mark.parametrize("module", EXACT, ids=lambda module: module.STUDY.name)
def test_a_quick_run_writes_its_numbers_what_is_published_and_a_figure(module, quick):
    name = module.STUDY.name
    found, folder = quick(name)
    content = (folder / f"{name}.png").read_bytes()
    assert content.startswith(b"\x89PNG")
    assert len(content) > 20_000
    assert found["published"] == module.PUBLISHED
    for entry in found["published"].values():
        assert entry.keys() == {"value", "source", "tag"}
        assert entry["tag"] in ("derived", "read in the paper", "read in the abstract")
    if module is not checkpoint_cost:  # whose verdict is on the clock, and small cells are dear
        assert "in which the claim holds" in found["verdict"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["jacobian_bound", "--strengths", "0.5", "-1"], "`--strengths` must be above 0: got 0.5, -1.0"),
        (["jacobian_bound", "--seeds", "1"], "`--seeds` must be at least 2: got 1"),
        (["cliff", "--fold-w", "3"], "`--fold-w` must lie between 4 and 20: got 3.0"),
        (["cliff", "--clip-norm", "0"], "`--clip-norm` must be above 0: got 0.0"),
        (["cliff", "--grid", "1"], "`--grid` must be at least 2: got 1"),
        (["lyapunov", "--gains"], "`--gains` must be above 0: got nothing"),
        (["lyapunov", "--transient", "-1"], "`--transient` must be at least 0: got -1"),
        (["curse_of_memory", "--lambdas", "0.5", "1"], "`--lambdas` must lie between 0 and 1: got 1.0"),
        (["checkpoint_cost", "--slots", "0"], "`--slots` must be above 0: got 0"),
        (["checkpoint_cost", "--seconds", "nan"], "`--seconds` must be above 0: got nan"),
    ],
)
def test_bad_flags_are_one_clear_line(arguments, message, capsys):
    assert cli.main(["run", *arguments]) == 2
    assert capsys.readouterr().err == f"error: {message}\n"


@pytest.mark.parametrize("module", EXACT, ids=lambda module: module.STUDY.name)
def test_configs_are_frozen(module):
    with pytest.raises(dataclasses.FrozenInstanceError):
        module.Config().seed = 1
