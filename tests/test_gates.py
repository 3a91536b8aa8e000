"""What a pullback wants of a step and is there already is not kept a second time."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxbptt as jb
from jaxbptt.adjoints import _gates, _rows
from jaxbptt.cells._from_split import split_of
from tests import cases
from tests.cases import CELLS

T, B, d, n = 6, 3, 4, 5


def drawn(case):
    """θ_h, xs, h_0, and h_1 … h_T by the cell itself, step by step."""
    keys = jax.random.split(jax.random.key(0), 3)
    theta_h = case.cell.init(keys[0], d, n, jnp.float64)
    xs = (case.inputs or cases._normal)(keys[1], (T, B), d)
    h_0 = jax.tree.map(lambda leaf: leaf + 0.1, case.cell.initial_state(theta_h, (B,)))
    hs = [h_0]
    for t in range(T):
        hs.append(case.cell.apply(theta_h, jax.tree.map(lambda leaf, t=t: leaf[t], xs), hs[-1]))
    return theta_h, xs, h_0, *(jax.tree.map(lambda *h: jnp.stack(h), *part) for part in (hs[:-1], hs[1:]))


@pytest.mark.parametrize("case", CELLS, ids=cases.name)
def test_what_is_there_is_known_by_its_numbers(case):
    theta_h, xs, h_0, hs_tm1, hs = drawn(case)
    split = split_of(case.cell)
    there = jax.tree.leaves((xs, hs_tm1, hs))
    gates = jax.tree.leaves(split.gates(theta_h, split.project(theta_h, xs), hs_tm1, hs))
    equal = [next((k for k, leaf in enumerate(there) if np.array_equal(leaf, gate)), None) for gate in gates]
    assert _gates.places(split, theta_h, xs, h_0) == equal


@pytest.mark.parametrize("case", CELLS, ids=cases.name)
def test_a_row_of_checkpointed_holds_gates_only_where_some_are_computed(case):
    theta_h, xs, h_0, _, _ = drawn(case)
    _, gates = _rows.row(jb.adjoints.checkpointed(slots=2), case.cell, theta_h, xs, h_0)
    assert (gates is None) == (case.name.split("-")[0] in ("linear", "elman", "from_step", "by_hand"))


@pytest.mark.parametrize(
    ("cell", "states", "gates"),
    [
        (cases.by_hand, 1, 0),
        (jb.cells.stacked(jb.cells.elman(), jb.cells.elman()), 2, 0),
        (jb.cells.stacked(jb.cells.lstm(), jb.cells.lstm()), 4, 8),
    ],
    ids=["by hand", "stacked elman", "stacked lstm"],
)
def test_memory_is_that_of_the_states_and_of_what_is_computed(cell, states, gates):
    T, B, n = 2000, 8, 64
    theta_h = jax.eval_shape(lambda: cell.init(jax.random.key(0), n, n, jnp.float32))
    h_0 = jax.eval_shape(lambda theta_h: cell.initial_state(theta_h, (B,)), theta_h)
    xs = jax.ShapeDtypeStruct((T, B, n), jnp.float32)

    def loss(theta_h, xs, h_0):
        h_T, _ = jb.unroll(cell, theta_h, xs, h_0, adjoint=jb.adjoints.full(block=20))
        return sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(h_T))

    program = jax.jit(jax.grad(loss)).lower(theta_h, xs, h_0).compile()
    held = program.memory_analysis().temp_size_in_bytes / (T * B * n * 4)
    assert states + gates <= held <= 1.05 * (states + gates) + 0.1  # and a block at work
