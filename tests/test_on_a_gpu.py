"""What only a GPU can show: states that lie in the host's memory, what the device then holds, and cuDNN.

    XLA_PYTHON_CLIENT_PREALLOCATE=false python -m pytest tests/test_on_a_gpu.py

Skipped where JAX has none. The laws are those of the other tests, which run on a GPU as they are.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxbptt as jb
from tests import cases
from tests.cases import CELLS, assert_close, oracle, problem

pytestmark = pytest.mark.skipif(jax.default_backend() != "gpu", reason="JAX has no GPU here")
F32 = jnp.float32
LSTM = next(case for case in CELLS if case.name == "lstm")


def gradient(given, adjoint):
    F = jb.objective(given.model, jb.losses.l2_loss, adjoint=adjoint)
    return jax.jit(jax.value_and_grad(F, argnums=(0, 3)))(given.theta, given.xs, given.ys, given.h_0)


@pytest.mark.parametrize(("case", "residuals"), cases.in_turn(CELLS, ["gates", "states"]))
def test_states_in_the_memory_of_the_host_give_the_gradient(case, residuals):
    """Blocks of 2 of 7 steps, the last of which overlaps: several stores and fetches."""
    given = problem(case, T=7, batch=(3,), seed=1)
    value, (theta_bar, h_0_bar) = gradient(given, jb.adjoints.full(block=2, residuals=residuals, memory="host"))
    wanted_value, (wanted_theta, _, wanted_h_0) = oracle(given)
    np.testing.assert_allclose(value, wanted_value, rtol=1e-12)
    assert_close(theta_bar, wanted_theta, 1e-11)
    if case.name not in ("resettable", "learned_start"):  # a reset at the first step leaves nothing of h_0
        assert_close(h_0_bar, wanted_h_0, 1e-11)


def peak():
    return jax.local_devices()[0].memory_stats()["peak_bytes_in_use"]


def test_the_device_holds_a_few_blocks_of_them():
    """The peak never sinks, so the smaller comes first. F reads h_T alone: outputs would stay on the device."""
    cell, (T, B, n) = jb.cells.lstm(), (20_000, 64, 64)
    theta_h = cell.init(jax.random.key(0), n, n, F32)
    xs = jax.random.normal(jax.random.key(1), (T, B, n), F32)
    h_0 = cell.initial_state(theta_h, (B,))

    def F(theta_h, adjoint):
        h_T, _ = jb.unroll(cell, theta_h, xs, h_0, adjoint=adjoint)
        return jnp.mean(h_T.h**2)

    before, held, found = peak(), {}, {}
    for memory in ("host", "device"):
        found[memory] = jax.block_until_ready(
            jax.jit(jax.grad(functools.partial(F, adjoint=jb.adjoints.full(memory=memory))))(theta_h)
        )
        held[memory] = peak() - before
    array = T * B * n * 4
    assert held["device"] > 6 * array  # h, c and the four gates
    assert held["host"] < array
    assert_close(found["host"], found["device"], 1e-3)  # products of blocks, not of all of T, in TF32


def test_a_batch_over_all_devices_is_the_same_sum():
    given = problem(LSTM, T=5, batch=(4 * jax.device_count(),))
    F = jb.objective(given.model, jb.losses.l2_loss)
    both = (jax.jit(jax.grad(f))(given.theta, given.xs, given.ys) for f in (F, jb.data_parallel(F)))
    assert_close(*both, 1e-12)


@pytest.mark.parametrize("name", ["cuDNN by jax", "torch.nn"])
@pytest.mark.parametrize("cell", ["elman", "gru", "lstm"])
def test_cudnn_in_the_benchmark_has_the_gradient_of_the_plain_scan(name, cell):
    """The one check of how its weights lie in memory that is made with cuDNN itself. TF32's rounding is allowed."""
    from experiments.benchmarks.measuring import side_by_side
    from experiments.benchmarks.peers import contenders, plain, work
    from experiments.benchmarks.peers.contender import LeftOutError

    (contender,) = (one for one in (*contenders.PEERS, *contenders.GPU_PEERS) if one.name == name)
    task = work.make(cell, work.Shape(B=4, T=5, d=2, n=3))
    with jax.enable_x64(False), jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        try:
            built = contenders.build(contender, task)
        except LeftOutError as reason:
            pytest.skip(str(reason))
        assert side_by_side.check(contender, task, built, plain.reference(task)) < 1e-2
