"""The check of a cell accepts right rules, and reports what it compared."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxbptt as jb
from tests.cases import CELLS
from tests.checking.given import CELL, ONCE, WRONG, inputs_of


@pytest.mark.usefixtures("eager")
@pytest.mark.parametrize("case", CELLS, ids=lambda case: case.name)
def test_right_cells_pass(case):
    report = jb.check_cell(case.cell, **ONCE, inputs=inputs_of(case))
    leaves = [row.leaf for row in report.rows]
    assert any(leaf.startswith("theta_h") for leaf in leaves)
    assert any(leaf.startswith("x_t") for leaf in leaves)
    assert any(leaf.startswith("h_tm1") for leaf in leaves)
    assert any(leaf.startswith("full: theta_h") for leaf in leaves)
    for row in report.rows:
        assert row.autodiff <= report.tolerance < 1e-11
        assert np.isnan(row.differences) == (": " in row.leaf)
        assert np.isnan(row.differences) == np.isnan(row.uncertainty)
        assert not row.differences - row.uncertainty > report.difference_tolerance
        assert report.difference_tolerance < 1e-7


@pytest.mark.usefixtures("eager")
def test_the_report_is_a_table_of_all_cases():
    report = jb.check_cell(CELL["lstm"], **{**ONCE, "seeds": (0, 1), "batch_shapes": ((2,), (2,))})
    assert report.cases == 2 * 1 * 2 * (
        2 + 2
    )  # seeds · sizes · batches · (steps, and the trajectory with both residuals)
    assert [row.leaf for row in report.rows] == [
        *("theta_h.W_x", "theta_h.W_h", "theta_h.b", "x_t", "h_tm1.h", "h_tm1.c"),
        *("full: h_T.h", "full: h_T.c", "full: hs"),
        *("full: theta_h.W_x", "full: theta_h.W_h", "full: theta_h.b", "full: xs", "full: h_0.h", "full: h_0.c"),
    ]
    title, head, *rows, allowed = str(report).splitlines()
    assert title == "check_cell: 16 cases, worst relative error"
    assert head.split() == ["leaf", "jax", "differences", "uncertainty"]
    for line, row in zip(rows, report.rows, strict=True):
        differences = ["-"] * 2 if row.leaf.startswith("full") else [f"{n:.1e}" for n in row[2:]]
        assert line.split()[-3:] == [f"{row.autodiff:.1e}", *differences]
        assert line.startswith(row.leaf)
    allowances = f"{report.tolerance:.1e}", f"{report.difference_tolerance:.1e}"
    assert allowed.split() == ["allowed", *allowances, "beyond", "it"]
    # What was measured shows: the rounding of a difference is no zero.
    assert all(1e-15 < row.differences < 1e-9 for row in report.rows if row.leaf.startswith("theta_h"))
    assert len({len(line) for line in (head, *rows, allowed)}) == 1  # columns line up


@pytest.mark.usefixtures("eager")
def test_a_check_in_single_precision():
    report = jb.check_cell(CELL["elman-tanh"], **ONCE, dtype=jnp.float32)
    assert 1e-4 < report.tolerance < 1e-2
    assert max(row.autodiff for row in report.rows) > 1e-9  # it was float32


# Inputs that are not numbers


def _embed(theta_h, token_t, h_tm1):
    return jnp.tanh(0.9 * h_tm1 + theta_h["embedding"][token_t])


def _embedding(key, input_size, hidden_size, dtype):
    return {"embedding": jax.random.normal(key, (10, hidden_size), dtype)}


def _at_rest(theta_h, batch_shape):
    return jnp.zeros((*batch_shape, theta_h["embedding"].shape[1]), theta_h["embedding"].dtype)


def _tokens(key, shape, input_size, dtype):
    return jax.random.randint(key, shape, 0, 10)


@pytest.mark.usefixtures("eager")
def test_token_ids():
    cell = jb.cells.from_step(_embed, _embedding, _at_rest)
    arguments = {**ONCE, "inputs": _tokens}
    report = jb.check_cell(cell, **arguments)
    leaves = [row.leaf for row in report.rows]  # no x_t: token ids have no derivative
    whole = ["full: h_T", "full: hs", "full: theta_h['embedding']", "full: h_0"]
    assert leaves == ["theta_h['embedding']", "h_tm1", *whole]

    def vjp(theta_h, token_t, *rest):  # the row of the next token
        return cell.vjp(theta_h, (token_t + 1) % 10, *rest)

    with pytest.raises(WRONG, match=r"theta_h\['embedding'\]\[\d+, \d\]"):
        jb.check_cell(cell._replace(vjp=vjp), **arguments)
