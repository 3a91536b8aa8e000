"""What checkpointing costs: steps counted by a formula and by dynamic programming, and one too many is seen."""

import functools

import pytest

pytest.importorskip("tyro")
pytest.importorskip("matplotlib")
pytest.importorskip("rich")
pytest.importorskip("sklearn")

from experiments.kit import revolve
from experiments.studies.checkpoint_cost import study as checkpoint_cost
from experiments.study import silent


def test_step_counts_are_exactly_those_of_the_formula_and_of_gruslys(quick):
    found, _ = quick("checkpoint_cost")
    assert found["steps"]["T"] == 1000
    assert {int(c): row["planned"] for c, row in found["steps"]["by_states"].items()} == {
        10: 3636,
        30: 2472,
        50: 1948,
        100: 1898,
    }
    for row in found["steps"]["by_states"].values():
        assert row["planned"] == row["formula"] == row["gruslys"] - 1000
        assert row["gruslys_off"] == 0
    for row in found["timing"]["by_states"].values():
        assert row["over_full"]["low"] <= row["over_full"]["median"] <= row["over_full"]["high"]
        assert row["gradient_error"] < 1e-5
    for row in found["temporaries"]["by_states"].values():
        assert 0 < row["over_full"] < 0.5


def test_gruslys_recursion_by_memoised_python():
    @functools.cache
    def C(t, m):
        if t == 1:
            return 1
        if m == 1:
            return t * (t + 1) // 2
        return min(y + C(t - y, m - 1) + C(y, m) for y in range(1, t))

    found = checkpoint_cost.gruslys(40, 6)
    for m in range(1, 7):
        for t in range(1, 41):
            assert found[m, t] == C(t, m) == revolve.steps(t, m) + t
            if m > 1:
                assert checkpoint_cost.planned(t, m) == revolve.steps(t, m) if t in (2, 17, 40) else True


def test_a_schedule_that_wastes_steps_is_not_reproduced(monkeypatch):
    monkeypatch.setattr(checkpoint_cost, "planned", lambda T, c: revolve.steps(T, c) + 1)
    counted = checkpoint_cost.counts()
    monkeypatch.setattr(checkpoint_cost, "counts", lambda: counted)
    config = checkpoint_cost.Config(cell="elman", hidden_size=3, batch_size=1, steps=20, slots=(4,), rounds=1)
    verdict = checkpoint_cost.run(config, silent).numbers["verdict"]
    assert "1949 steps planned with 50 states, not 1948" in verdict
