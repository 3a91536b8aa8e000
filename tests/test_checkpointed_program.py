"""The program of checkpointed backpropagation: its size and its memory, which do not grow with T, made once."""

import jax
import jax.numpy as jnp
import pytest

import jaxbptt as jb
from jaxbptt.adjoints.checkpointed import checkpointed
from tests import cases
from tests.cases import CELLS, problem
from tests.jaxprs import equations

ELMAN, GRU, LSTM = (next(case for case in CELLS if case.name == name) for name in ("elman-tanh", "gru", "lstm"))


def traced_size(T, **options):
    given = problem(LSTM, T=T)
    F = jb.objective(given.model, jb.losses.l2_loss, adjoint=checkpointed(**options))
    jaxpr = jax.make_jaxpr(jax.grad(F, argnums=(0, 1, 3)))(given.theta, given.xs, given.ys, given.h_0)
    return len(list(equations(jaxpr.jaxpr)))


@pytest.mark.parametrize("options", [{"slots": 5, "block": 1}, {"slots": 10, "block": 5}], ids=str)
def test_the_program_does_not_grow_with_T(options):
    assert len({traced_size(T, **options) for T in (50, 500, 5000)}) == 1


def test_a_remainder_is_no_second_program():
    """Blocks that don't divide T are padded: selects more, but no loop and no product."""

    def work(T):
        given = problem(LSTM, T=T)
        F = jb.objective(given.model, jb.losses.l2_loss, adjoint=checkpointed(slots=10, block=5))
        jaxpr = jax.make_jaxpr(jax.grad(F, argnums=(0, 1, 3)))(given.theta, given.xs, given.ys, given.h_0)
        names = [equation.primitive.name for equation in equations(jaxpr.jaxpr)]
        return {name: names.count(name) for name in ("scan", "while", "dot_general", "tanh", "logistic")}

    assert work(50) == work(51) == work(504) == work(5003)


def temporaries(case, adjoint, T, B=4, n=16, d=8):
    given = problem(case, T=T, batch=(B,), n=n, d=d, dtype=jnp.float32)

    def loss(theta_h):
        h_T, _ = jb.unroll(case.cell, theta_h, given.xs, given.h_0, adjoint=adjoint)
        return jnp.sum(jax.tree.leaves(h_T)[0] ** 2)

    return jax.jit(jax.grad(loss)).lower(given.theta.h).compile().memory_analysis().temp_size_in_bytes


@pytest.mark.parametrize("case", [ELMAN, GRU, LSTM], ids=cases.name)
def test_fifty_slots_of_a_thousand_hold_a_tenth(case):
    assert temporaries(case, checkpointed(50), 1000) <= 0.1 * temporaries(case, jb.adjoints.full(), 1000)


@pytest.mark.parametrize("case", [ELMAN, LSTM], ids=cases.name)
def test_memory_does_not_grow_with_T_but_for_the_schedule(case):
    """The schedule itself is a few integers for each block; states of a loss of h_T are not kept."""
    short, long = (temporaries(case, checkpointed(20, block=10), T) for T in (200, 2000))
    assert long <= 1.05 * short + 4096


def test_nothing_is_made_twice():
    assert checkpointed(3) is checkpointed(slots=3) is checkpointed(3, residuals="gates")
    assert checkpointed() is checkpointed(None)
    assert checkpointed(3) != checkpointed(4)
    traces = []

    def step(theta_h, x_t, h_tm1):
        traces.append(1)
        return jnp.tanh(h_tm1 * theta_h + x_t)

    cell = jb.cells.from_step(step)

    @jax.jit
    def run(theta_h, xs):
        return jax.grad(lambda theta: jnp.sum(jb.unroll(cell, theta, xs, jnp.zeros(2), adjoint=checkpointed(2))[0]))(
            theta_h
        )

    run(jnp.ones(2), jnp.ones((5, 2)))
    traces.clear()
    run(jnp.ones(2), jnp.zeros((5, 2)))
    assert not traces
