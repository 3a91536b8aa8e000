"""How much a checkpointed gradient may keep: what is refused, and the block that is chosen."""

import functools

import jax
import jax.numpy as jnp
import pytest

import jaxbptt as jb
from jaxbptt.adjoints.checkpointed import checkpointed, revolve, rows
from tests.cases import CELLS, problem

LSTM = next(case for case in CELLS if case.name == "lstm")


def test_the_batch_of_a_state_decides_not_its_shape():
    """A matrix for each of two members is a batch of two."""
    blocks = []
    for B in (2, 400):
        cell = jb.cells.from_step(
            lambda theta_h, x_t, h_tm1: jnp.tanh(h_tm1 @ theta_h + x_t),
            initial_state=lambda theta_h, batch_shape=(): jnp.zeros((*batch_shape, *theta_h.shape)),
        )
        h_0, xs = jnp.zeros((B, 4, 4)), jax.ShapeDtypeStruct((1000, B, 4, 4), jnp.float64)
        blocks.append(rows.terms(checkpointed(100), cell, jnp.eye(4), xs, h_0).block)
    assert blocks == [revolve.choose_block(1000, 100, True, B) for B in (2, 400)]
    assert blocks[0] > blocks[1]


def test_a_fraction_is_that_many_of_the_steps():
    for fraction, T, slots in ((0.29, 100, 29), (0.299, 100, 29), (1 / 3, 3, 1), (1e-9, 9, 1)):
        given = problem(LSTM, T=T)
        found = rows.terms(checkpointed(fraction=fraction), LSTM.cell, given.theta.h, given.xs, given.h_0)
        assert found.slots == slots, fraction


@pytest.mark.parametrize(("options", "kind", "match"), [
    ({"budget": -1}, ValueError, "`budget` must be an integer, at least 1: got -1"),
    ({"fraction": 0.0}, ValueError, "`fraction` must be a number with 0 < fraction ≤ 1.*got 0.0"),
    ({"block": 0}, ValueError, "`block` must be an integer, at least 1: got 0"),
    ({"residuals": "all"}, ValueError, "`residuals` must be one of 'gates', 'states': got 'all'"),
], ids=str)  # fmt: skip
def test_bad_options_are_refused_at_once(options, kind, match):
    with pytest.raises(kind, match=match):
        checkpointed(**options)


def test_bad_options_that_need_the_shapes():
    given = problem(LSTM, T=9, batch=(2,), n=4)  # a row: (2 + 4) arrays of 2·4 float64, 384 bytes
    run = functools.partial(jb.unroll, given.case.cell, given.theta.h, given.xs, given.h_0)
    with pytest.raises(ValueError, match=r"`budget` must be at least 768 bytes here.*384 bytes each: got 767"):
        run(adjoint=checkpointed(budget=767))
    run(adjoint=checkpointed(budget=768))
    of_two_rows = rows.terms(checkpointed(budget=768), given.case.cell, given.theta.h, given.xs, given.h_0)
    assert of_two_rows.slots == 1  # and a row for the state in hand
    run(adjoint=checkpointed(budget=256, residuals="states"))
    with pytest.raises(ValueError, match=r"`block` must be at most `slots`.*got block=4, slots=3"):
        run(adjoint=checkpointed(3, block=4))
