"""Time in blocks: which, and that a rest, which is padded, gives each step once."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxbptt as jb
from jaxbptt._time import blocks
from jaxbptt.cells._from_split import split_of, take_step
from tests import cases
from tests.cases import CELLS, assert_close, oracle, problem

MIB = 2**20


def of_a_step(cell, theta_h, xs, h_0):
    """Shapes of what is projected, the state, and residuals."""
    x_t = jax.ShapeDtypeStruct(xs.shape[1:], xs.dtype)
    return jax.eval_shape(functools.partial(take_step, split_of(cell)), theta_h, x_t, h_0)


def chosen(T, B, n, *, backend="cpu", monkeypatch, cell=None, **options):
    """The block for an LSTM, whose widest array has 4n numbers a step and sample."""
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    cell = cell or jb.cells.lstm()
    theta_h = jax.eval_shape(lambda: cell.init(jax.random.key(0), n, n, jnp.float32))
    h_0 = jax.eval_shape(lambda theta_h: cell.initial_state(theta_h, (B,)), theta_h)
    xs = jax.ShapeDtypeStruct((T, B, n), jnp.float32)
    return blocks.choose(of_a_step(cell, theta_h, xs, h_0), theta_h, T, **options)


def test_on_a_cpu_a_block_stays_near_the_cache(monkeypatch):
    def block(*sizes, **options):
        return chosen(*sizes, monkeypatch=monkeypatch, **options)

    assert block(1024, 32, 16) == 1024  # 8 MiB in all: one block
    assert block(2048, 32, 16) == 256  # 8 KiB a step: 2 MiB
    assert block(1024, 32, 16, bounded=True) == 256  # a block of everything would keep what is to be saved
    assert block(96, 128, 512) == 4  # 1 MiB a step: half of the 8 MiB of θ_h, or every block would sum it all
    assert block(64, 128, 2048) == 2  # 4 MiB a step: half of θ_h is 64, but never more than 8
    assert block(2048 + 1, 32, 16) == 256  # no divisor of 2049 comes near
    assert block(2048 + 256 - 8, 32, 16) == 164  # one of 2296 does: no padding


def test_on_an_accelerator_all_of_T_unless_memory_is_what_counts(monkeypatch):
    def block(*sizes, **options):
        return chosen(*sizes, backend="gpu", monkeypatch=monkeypatch, **options)

    assert block(10_000, 64, 64) == 10_000
    assert block(1000, 64, 64, bounded=True) == 1000  # 64 MiB at most
    assert block(8192, 64, 64, bounded=True) == 1024  # 64 KiB a step


def test_of_a_step_of_a_user_the_state_counts(monkeypatch):
    """What it makes of an input of one number is at least as wide as the state."""
    cell = jb.cells.from_step(
        lambda theta_h, x_t, h_tm1: jnp.tanh(x_t @ theta_h + h_tm1),
        lambda key, d, n, dtype: jnp.ones((d, n), dtype),
        lambda theta_h, batch: jnp.zeros((*batch, theta_h.shape[1]), theta_h.dtype),
    )
    theta_h, h_0 = jnp.ones((1, 128), jnp.float32), jnp.zeros((32, 128), jnp.float32)
    xs = jax.ShapeDtypeStruct((2048, 32, 1), jnp.float32)
    assert blocks.choose(of_a_step(cell, theta_h, xs, h_0), theta_h, 2048) == 128  # 16 KiB a step


@pytest.mark.parametrize(
    ("adjoint", "h_0"),
    cases.in_turn(cases.EACH_ADJOINT, {"of a number": np.zeros(()), "of a batch": np.full((2, 3), 0.1)}, times=2),
)
def test_parameters_may_be_plain_numbers(adjoint, h_0):
    cell = jb.cells.from_step(lambda theta_h, x_t, h_tm1: jnp.tanh(theta_h["w"] * h_tm1 + theta_h["tau"] * x_t))
    theta_h = {"w": jnp.float64(0.5), "tau": 0.1}

    def gradient(adjoint):
        def last(xs):
            return jnp.sum(jb.unroll(cell, theta_h, xs, h_0, adjoint=adjoint)[0])

        return jax.jit(jax.grad(last))(np.ones((5, *h_0.shape)))

    assert_close(gradient(adjoint), gradient(jb.adjoints.autodiff()))


@pytest.mark.parametrize(("T", "most"), [(1, 1), (7, 3), (13, 5), (1000, 7), (9, 100)])
def test_blocks_of_one_size_are_no_more_than_need_be(T, most):
    K = blocks.even(T, most)
    number = -(-T // K)
    assert 1 <= K <= most
    assert number == -(-T // most)
    assert number * K - T < min(number, K)  # few are padded


def test_blocks_are_joined_as_they_were_cut():
    """Of an empty batch too, whose number of steps no size can tell."""
    for shape in ((12, 2, 3), (12,), (12, 0, 3)):
        xs = np.arange(np.prod(shape)).reshape(shape)
        assert blocks.cut(xs, 4).shape == (3, 4, *shape[1:])
        np.testing.assert_array_equal(blocks.join(blocks.cut(xs, 4)), xs)


BLOCKS = {
    "full": jb.adjoints.full(block=5),
    "states": jb.adjoints.full(block=5, residuals="states"),
    "tangent": jb.adjoints.tangent(block=5),
}


@pytest.mark.parametrize(("case", "adjoint"), cases.in_turn(CELLS, BLOCKS))
def test_blocks_with_a_rest_give_the_gradient(case, adjoint):
    """13 = 3 · 5 - 2."""
    given = problem(case, T=13, batch=(2,), seed=1)
    F = jb.objective(given.model, jb.losses.l2_loss, adjoint=adjoint)
    run = jax.jit(jax.value_and_grad(F, argnums=(0, 1, 3), allow_int=True))
    value, bars = run(given.theta, given.xs, given.ys, given.h_0)
    bars = jax.tree.map(lambda bar: None if bar.dtype == jax.dtypes.float0 else bar, bars)
    wanted_value, wanted = oracle(given)
    np.testing.assert_allclose(value, wanted_value, rtol=1e-12)
    assert_close(bars, wanted, 1e-10)


@pytest.mark.parametrize(
    "adjoint", [*BLOCKS.values(), jb.adjoints.checkpointed(6, block=5)], ids=[*BLOCKS, "checkpointed"]
)
def test_a_rest_is_no_second_program(adjoint):
    """As many loops, products and activations as where blocks divide T, and selects for the padding."""
    case = next(case for case in CELLS if case.name == "lstm")

    def program(T):
        given = problem(case, T=T)
        F = jax.grad(jb.objective(given.model, jb.losses.l2_loss, adjoint=adjoint), argnums=(0, 1, 3))
        text = jax.jit(F).lower(given.theta, given.xs, given.ys, given.h_0).compile().as_text()
        return [text.count(f" {name}(") for name in ("while", "dot", "tanh")], text.count(" = ")

    (of_rest, size), (of_none, usual) = program(13), program(15)
    assert of_rest == of_none
    assert size <= 1.5 * usual


def test_gates_are_computed_again_not_kept_from_the_forward_pass():
    """In one block of all of T too: a compiler that finds W_x x_t in the forward pass would keep that instead."""
    given = problem(next(case for case in CELLS if case.name == "gru"), T=400, batch=(8,), n=16, dtype=jnp.float32)

    def compiled(**options):
        def loss(theta_h):
            hs = jb.unroll(given.case.cell, theta_h, given.xs, given.h_0, adjoint=jb.adjoints.full(**options))[1]
            return jnp.sum(hs**2)

        return jax.jit(jax.grad(loss)).lower(given.theta.h).compile()

    gates, states = (compiled(residuals=residuals, block=400).as_text() for residuals in ("gates", "states"))
    assert states.count(" dot(") == gates.count(" dot(") + 2  # W_x x and W_h h once more
    gates, states = (compiled(residuals=residuals, block=20).memory_analysis() for residuals in ("gates", "states"))
    assert states.temp_size_in_bytes <= 0.5 * gates.temp_size_in_bytes


@pytest.mark.parametrize("residuals", ["gates", "states"])
def test_a_sum_over_many_blocks_in_half_precision(residuals):
    """In bfloat16 256 + 1 is 256: ∂F/∂θ_h is summed over blocks in float32."""
    cell = jb.cells.from_step(lambda theta_h, x_t, h_tm1: theta_h * x_t + 0 * h_tm1)
    ones, adjoint = jnp.ones((2000, 1), jnp.bfloat16), jb.adjoints.full(block=10, residuals=residuals)

    def F(theta_h):
        return jnp.sum(jb.unroll(cell, theta_h, ones, ones[0], adjoint=adjoint)[1].astype(jnp.float32))

    assert jax.grad(F)(jnp.ones(1, jnp.bfloat16)) == 2000
