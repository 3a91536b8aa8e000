"""What is compiled for a GPU: two H100 that are not there.

    pip install -e '.[test,cuda]' && JAX_PLATFORMS=cpu python -m pytest tests/test_compiled_for_gpu.py

Compiling without a device is experimental in JAX: it is used in this file only, and without the plugin the tests are
skipped. Nothing runs here, so it is about programs and their memory; numbers are what the other tests look at.
"""

import importlib.util
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

import jaxbptt as jb
from tests import cases
from tests.cases import CELLS

H100 = """
platform_name: "CUDA" device_description_str: "NVIDIA H100 80GB HBM3"
runtime_version { major: 13 } dnn_version_info { major: 9 minor: 12 }
gpu_device_info {
  cuda_compute_capability { major: 9 } core_count: 132 fpus_per_core: 128 clock_rate_ghz: 1.98
  threads_per_warp: 32 threads_per_block_limit: 1024 threads_per_core_limit: 2048
  shared_memory_per_block: 49152 shared_memory_per_block_optin: 232448 shared_memory_per_core: 233472
  registers_per_block_limit: 65536 registers_per_core_limit: 65536
  block_dim_limit_x: 2147483647 block_dim_limit_y: 65535 block_dim_limit_z: 65535
  memory_bandwidth: 3352320000000 l2_cache_size: 52428800 device_memory_size: 84929347584
}
"""  # as the makers of the card and XLA's own list of targets have it
PLUGINS = ("jax_plugins.xla_cuda13", "jax_plugins.xla_cuda12")
SOME = [case for case in CELLS if case.name in ("elman-tanh", "gru", "lstm", "from_step")]
F32 = jnp.float32


@pytest.fixture(scope="module")
def gpus():
    if not any(importlib.util.find_spec("jax_plugins") and importlib.util.find_spec(name) for name in PLUGINS):
        pytest.skip("the compiler for CUDA is not installed: pip install -e '.[cuda]'")
    from jax.experimental import topologies

    return topologies.get_topology_desc("h100", "cuda", target_config=H100, topology="1x1x2").devices


@pytest.fixture(autouse=True)
def _on_a_gpu(monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")


def placed(tree, devices, *spec):
    """Shapes of arrays that lie on these devices."""
    sharding = NamedSharding(Mesh(np.array(devices), ("batch",)), P(*spec))
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), tree)


def compiled(function, *arguments):
    return jax.jit(function).trace(*arguments).lower(lowering_platforms=("cuda",)).compile()


def gradient(case, adjoint, gpus, T, B=64, d=64, n=64, devices=1):
    """Of the last state, by parameters, inputs and h_0; the batch lies on so many devices."""
    cell = case.cell
    theta_h = jax.eval_shape(lambda: cell.init(jax.random.key(0), d, n, F32))
    h_0 = jax.eval_shape(lambda theta_h: cell.initial_state(theta_h, (B,)), theta_h)

    def loss(theta_h, xs, h_0):
        h_T, _ = jb.unroll(cell, theta_h, xs, h_0, adjoint=adjoint)
        return sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(h_T))

    xs, here = jax.ShapeDtypeStruct((T, B, d), F32), gpus[:devices]
    arguments = placed(theta_h, here), placed(xs, here, None, "batch"), placed(h_0, here, "batch")
    return compiled(jax.grad(loss, argnums=(0, 1, 2)), *arguments)


def device_and_host(program):
    """Bytes of temporaries in the memory of each."""
    found = program.memory_analysis()
    return found.temp_size_in_bytes, found.host_temp_size_in_bytes


@pytest.mark.parametrize("case", SOME, ids=cases.name)
@pytest.mark.parametrize("name", cases.ADJOINTS)
def test_every_adjoint_compiles(case, name, gpus):
    small = {"B": 2, "d": 3, "n": 5}
    program = gradient(case, cases.ADJOINTS[name], gpus, T=40, **small)
    assert device_and_host(program)[0] > 0


@pytest.mark.parametrize(("name", "states", "gates"), [("gru", 1, 4), ("lstm", 2, 4)])
def test_states_are_kept_in_the_memory_of_the_host(name, states, gates, gpus):
    """What grows with T is there, and on the device a few blocks of 64 MiB, however long the sequence."""
    case = next(case for case in CELLS if case.name == name)
    for residuals, arrays in (("gates", states + gates), ("states", states)):
        on_device = {}
        for T in (5000, 20_000):
            adjoint = jb.adjoints.full(memory="host", residuals=residuals)
            on_device[T], on_host = device_and_host(gradient(case, adjoint, gpus, T))
            kept = arrays * T * 64 * 64 * 4
            assert kept <= on_host <= 1.01 * kept
        assert on_device[20_000] <= 1.25 * on_device[5000]  # blocks of another length
        assert on_device[20_000] <= 6 * 64 * 2**20


@pytest.mark.parametrize(("name", "states", "gates"), [("gru", 1, 3), ("lstm", 2, 4)])
def test_gates_computed_again_save_memory_here_too(name, states, gates, gpus):
    """Kept are the states, and what a block needs."""
    case = next(case for case in CELLS if case.name == name)
    everything, again = (
        device_and_host(gradient(case, jb.adjoints.full(residuals=residuals), gpus, T=20_000))
        for residuals in ("gates", "states")
    )
    assert everything[1] == again[1] == 0
    array = 20_000 * 64 * 64 * 4
    assert everything[0] >= (states + gates) * array
    assert again[0] <= (states + 1.25) * array


def test_where_there_are_no_gates_nothing_is_computed_again(gpus):
    case = next(case for case in CELLS if case.name == "elman-tanh")
    gates, states = (gradient(case, jb.adjoints.full(residuals=r), gpus, T=500, n=256) for r in ("gates", "states"))
    assert device_and_host(states) == device_and_host(gates)


@pytest.mark.parametrize("devices", [1, 2])
def test_no_step_is_computed_again_in_the_next(devices, gpus):
    """W_hᵀ delta of a vector is a sum that XLA would take into the next step, once for each number that reads it: with
    eight steps in one program that took 158 µs a step on an H200."""
    (elman,) = (case for case in SOME if case.name == "elman-tanh")
    text = gradient(elman, jb.adjoints.full(), gpus, T=64, B=devices, d=2, n=8, devices=devices).as_text()
    programs = re.findall(r"^%?fused[^\n]*\{\n(.*?)^\}", text, re.DOTALL | re.MULTILINE)
    assert max(program.count(" reduce(") for program in programs) == 1


def test_one_reduction_of_the_gradient_and_none_in_a_loop(gpus):
    model = jb.rnn(jb.cells.lstm(), jb.readouts.linear())
    F = jb.data_parallel(jb.objective(model, jb.losses.l2_loss), devices=tuple(gpus))
    theta = jax.eval_shape(lambda: model.init(jax.random.key(0), input_size=8, hidden_size=16, output_size=4))
    xs, ys = (placed(jax.ShapeDtypeStruct((50, 4, k), F32), gpus, None, "batch") for k in (8, 4))
    text = compiled(jax.grad(F), placed(theta, gpus), xs, ys).as_text()
    everywhere = text.count(" all-reduce(") + text.count(" all-reduce-start(")
    main = text[text.index("\nENTRY ") :]  # the loops are computations of their own, ahead of it
    assert everywhere == main.count(" all-reduce(") + main.count(" all-reduce-start(") == 1


def test_cudnn_takes_what_the_benchmark_gives_it(gpus, monkeypatch):
    """Its two calls, forward and back, with the sizes that only a device can tell made up."""
    from jax.experimental import rnn

    from experiments.benchmarks.peers import cudnn_peer, work

    monkeypatch.setattr(rnn.gpu_rnn, "compute_rnn_workspace_reserve_space_sizes", lambda *a: (96, 64), raising=False)
    F, arguments, wanted, _ = cudnn_peer.problem(work.make("lstm", work.Shape(B=4, T=5, d=2, n=3)))
    shapes = placed(jax.eval_shape(lambda: arguments), gpus[:1])
    text = compiled(jax.value_and_grad(F, argnums=tuple(wanted.values())), *shapes).as_text()
    assert 'custom_call_target="cudnn_rnn_ffi"' in text
    assert 'custom_call_target="cudnn_rnn_bwd_ffi"' in text
