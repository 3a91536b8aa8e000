"""Long sequences in the benchmark: the numbers of the quick form are those of the compiler."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

pytest.importorskip("tyro")
pytest.importorskip("matplotlib")
pytest.importorskip("rich")
pytest.importorskip("sklearn")

import jaxbptt as jb
from experiments.benchmarks import config
from experiments.benchmarks.measuring import long
from experiments.benchmarks.reporting import summary
from experiments.runner import cli
from experiments.study import silent


def memory(cell, shape, m):
    """As the compiler has it for a program that is written out here."""
    B, T, d, n = shape
    model = jb.rnn(getattr(jb.cells, cell)(), jb.readouts.linear())
    F = jb.objective(model, jb.losses.l2_loss, adjoint=jb.adjoints.checkpointed())
    theta = model.init(jax.random.key(5), input_size=d, hidden_size=n, output_size=m)
    xs, ys = jnp.zeros((T, B, d)), jnp.zeros((T, B, m))
    found = jax.jit(jax.grad(F)).lower(theta, xs, ys).compile().memory_analysis()
    assert found is not None
    return found


def test_the_quick_form_runs_and_its_numbers_are_the_compilers(tmp_path, capsys):
    assert cli.main(["bench", "--quick", "--what", "long", "--out", str(tmp_path)]) == 0
    found = json.loads((tmp_path / "result.json").read_text())
    assert [row["cell"] for row in found["long"]] == ["lstm", "gru"]
    for row in found["long"]:
        compiled = memory(row["cell"], row["shape"].values(), row["outputs"])
        assert row["temporaries_bytes"] == compiled.temp_size_in_bytes > 0
        assert row["arguments_bytes"] == pytest.approx(compiled.argument_size_in_bytes, rel=0.01)
        assert row["rounds"] == len(row["times_ms"]) == config.QUICK["rounds"]
        assert row["us_a_step"] == pytest.approx(1e3 * row["median_ms"] / row["shape"]["T"])
        assert min(row["peak_bytes"], row["before_bytes"]) > 2**20
        assert row["compile_seconds"] > 0
    assert found["marks"] == []
    capsys.readouterr()
    assert cli.main(["bench", "--markdown", str(tmp_path / "result.json")]) == 0
    assert "| gru 1, 1000, 2, 4, 1 |" in capsys.readouterr().out


def test_what_takes_longer_than_its_seconds_is_called_once(monkeypatch):
    calls = []

    def clock(program, arguments):
        calls.append(long.SECONDS)
        return calls[-1]

    monkeypatch.setattr(long, "_clock", clock)
    row = long.row(long.case("elman,1,3,2,2,1"), 0, 9, silent)
    assert row.seconds.tolist() == [long.SECONDS]
    assert len(calls) == 1


def test_the_marks_are_of_the_cases_by_default():
    rows = [long.Row(long.case(text), 0, 17 * 2**20, 1.0, np.ones(1), 0, 0) for text in config.LONG]
    marks = summary.marks([], None, None, False, rows)
    assert [(mark.limit, mark.measured, mark.met) for mark in marks] == [
        ("≤ 16", "17.00", False),
        ("≤ 16", "17.00", False),
        ("≤ 1024", "17.00", True),
    ]
    small = rows[0]._replace(case=long.case("lstm,1,3,2,2,1"))
    assert summary.marks([], None, None, False, [small]) == []


@pytest.mark.parametrize("text", ["lstm,1,2,3,4", "vanilla,1,2,3,4,5", "gru,1,0,3,4,5"])
def test_a_case_that_is_wrong_is_one_clear_line(text, capsys):
    assert cli.main(["bench", "--long", text]) == 2
    assert capsys.readouterr().err == (
        f"error: a case must be a cell and five positive integers, cell,B,T,d,n,m, such as gru,1,1000,4,16,1: "
        f"got `{text}`\n"
    )
