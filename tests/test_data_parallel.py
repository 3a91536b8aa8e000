"""The batch split over devices: the same numbers, one reduction, and two real processes."""

import socket
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxbptt as jb
from tests import cases
from tests.cases import CELLS, assert_close, problem
from tests.jaxprs import equations

LSTM = next(case for case in CELLS if case.name == "lstm")


def flat(tree):
    return [leaf for leaf in jax.tree.leaves(tree) if leaf.dtype != jax.dtypes.float0]


@pytest.mark.parametrize(("case", "masked"), cases.in_turn(CELLS, {"all": False, "mask": True}))
def test_same_numbers_as_one_device(case, masked):
    given = problem(case, T=5, batch=(4, 3))
    mask = jax.random.bernoulli(jax.random.key(3), 0.5, (5, 4, 3)) if masked else None
    F = jb.objective(given.model, jb.losses.l2_loss)
    one, two = (
        jax.jit(jax.value_and_grad(f, argnums=(0, 1, 3), allow_int=True))(
            given.theta, given.xs, given.ys, given.h_0, mask=mask
        )
        for f in (F, jb.data_parallel(F))
    )
    for a, b in zip(flat(one), flat(two), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize("masked", [False, True], ids=["all", "mask"])
def test_sums_and_default_states(masked):
    given = problem(LSTM, T=5, batch=(4,))
    mask = jnp.zeros((5, 4), bool).at[2:, 0].set(True) if masked else None  # nothing counts on the second device
    for reduction in ("sum", "mean"):
        F = jb.objective(given.model, jb.losses.l2_loss, reduction=reduction)
        split = jb.data_parallel(F)
        arguments = (given.theta, given.xs, given.ys)
        values, bars = zip(*(jax.jit(jax.value_and_grad(f))(*arguments, mask=mask) for f in (split, F)), strict=True)
        np.testing.assert_allclose(*values, rtol=1e-12)
        assert_close(*bars, 1e-11)


DIVIDED = {
    "mean": {},
    "sum": {"reduction": "sum"},
    "sequences": {"reduction": "sequences"},
    "last": {"at": "last"},
    "last-sequences": {"at": "last", "reduction": "sequences"},
    "aux": {"has_aux": True},
    "aux-last-sum": {"at": "last", "reduction": "sum", "has_aux": True},
}


@pytest.mark.parametrize(
    ("options", "what"), cases.in_turn(DIVIDED, ["lengths", "mask", "weights", "weights-and-lengths"], times=2)
)
def test_every_objective_is_the_same_divided(options, what):
    """The second device has the ended sequences, and the third of four counts for nothing."""
    given = problem(LSTM, T=5, batch=(4,), seed=3)
    weights = jax.random.uniform(jax.random.key(3), (5, 4)).at[:, 2].set(0.0)
    last = options.get("at") == "last"
    if last:
        given, weights = given._replace(ys=given.ys[-1]), weights[0]
    asked = {"lengths": jnp.array([5, 2, 1, 0])} if "lengths" in what else {}
    asked |= {"mask": weights > 0.4 if what == "mask" else weights} if what != "lengths" else {}
    F = jb.objective(given.model, jb.losses.l2_loss, **options)
    has_aux = options.get("has_aux", False)
    one, two = (
        jax.jit(jax.value_and_grad(f, argnums=(0, 1, 2, 3), has_aux=has_aux))(
            given.theta, given.xs, given.ys, given.h_0, **asked
        )
        for f in (F, jb.data_parallel(F))
    )
    assert jax.tree.structure(one) == jax.tree.structure(two)
    for a, b in zip(flat(one), flat(two), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("reduction", ["mean", "sum", "sequences"])
def test_devices_on_which_nothing_counts(reduction):
    """On the second alone, and on both."""
    given = problem(LSTM, T=5, batch=(4,), seed=3)
    F = jb.objective(given.model, jb.losses.l2_loss, reduction=reduction)
    split = jax.jit(jax.value_and_grad(jb.data_parallel(F)))
    lengths = jnp.array([5, 2, 0, 0])
    value, bar = split(given.theta, given.xs, given.ys, lengths=lengths)
    whole = jax.jit(jax.value_and_grad(F))
    wanted, wanted_bar = whole(given.theta, given.xs[:, :2], given.ys[:, :2], lengths=lengths[:2])
    np.testing.assert_allclose(value, wanted, rtol=1e-12)
    assert_close(bar, wanted_bar, 1e-12)
    assert not any(jnp.any(leaf) for leaf in flat(split(given.theta, given.xs, given.ys, lengths=0 * lengths)))


def test_steps_are_counted_in_floating_point():
    """Their number over all hosts may not fit an int32."""
    given = problem(LSTM, T=5, batch=(4,), dtype=jnp.float16)
    F = jb.data_parallel(jb.objective(given.model, jb.losses.l2_loss))
    traced = jax.make_jaxpr(F)(given.theta, given.xs, given.ys, mask=jnp.ones((5, 4), bool))
    summed = [equation for equation in equations(traced.jaxpr) if equation.primitive.name.startswith("psum")]
    dtypes = {var.aval.dtype for equation in summed for var in equation.invars}
    assert dtypes == {jnp.dtype("float16"), jnp.dtype("float32")}  # F's shares; the count, beyond 65,504 as well


def test_the_gradients_are_reduced_once_and_outside_every_loop():
    given = problem(LSTM, T=5, batch=(4,))
    gradient = jax.jit(jax.grad(jb.data_parallel(jb.objective(given.model, jb.losses.l2_loss))))
    program = gradient.lower(given.theta, given.xs, given.ys).compile().as_text()
    computations = program.split("\n\n")
    with_reduction = [text for text in computations if "all-reduce(" in text or "all-reduce-start(" in text]
    assert len(with_reduction) == 1
    assert with_reduction[0].lstrip().startswith("ENTRY")
    assert "all-gather" not in program


def test_the_gradient_of_the_scaled_objective():
    given = problem(LSTM, T=3, batch=(2,))
    F = jb.objective(given.model, jb.losses.l2_loss)
    scaled, plain = (jax.jit(jax.grad(lambda theta, f=f: 3.0 * f(theta, given.xs, given.ys)))(given.theta) for f in
                     (jb.data_parallel(F), F))  # fmt: skip
    assert_close(scaled, plain, 1e-11)


def test_training_on_two_devices_is_training_on_one():
    given = problem(LSTM, T=5, batch=(4,))
    F = jb.objective(given.model, jb.losses.l2_loss)
    batches = [(given.xs, given.ys)] * 4
    one, two = (
        jb.training.fit(jb.estimators.from_objective(f), optax.sgd(0.1), given.theta, batches, steps_per_dispatch=2)
        for f in (F, jb.data_parallel(F))
    )
    assert_close(two.theta, one.theta, 1e-11)
    bptt = jb.training.fit(jb.estimators.bptt(given.model, jb.losses.l2_loss), optax.sgd(0.1), given.theta, batches)
    assert_close(one.theta, bptt.theta, 1e-11)


PROCESS = """
import sys
import jax, jax.numpy as jnp, numpy as np
jax.config.update("jax_num_cpu_devices", 1)
jax.config.update("jax_cpu_collectives_implementation", "gloo")
jax.distributed.initialize("127.0.0.1:" + sys.argv[2], num_processes=2, process_id=int(sys.argv[1]))
import jaxbptt as jb
from jax.sharding import Mesh, NamedSharding, PartitionSpec as P

model = jb.rnn(jb.cells.gru(), jb.readouts.linear())
theta = model.init(jax.random.key(0), input_size=3, hidden_size=5, output_size=2)
xs, ys = np.sin(np.arange(7 * 4 * 3.0)).reshape(7, 4, 3), np.cos(np.arange(7 * 4 * 2.0)).reshape(7, 4, 2)
F = jb.objective(model, jb.losses.l2_loss)
mesh = Mesh(np.array(jax.devices()), ("batch",))

def shared(array, spec):  # each process brings its own part
    array = np.asarray(array, np.float32)
    return jax.make_array_from_callback(array.shape, NamedSharding(mesh, spec), lambda index: array[index])

arguments = jax.tree.map(lambda leaf: shared(leaf, P()), theta), *(shared(a, P(None, "batch")) for a in (xs, ys))
bar = jax.jit(jax.grad(jb.data_parallel(F)))(*arguments)
alone = jax.grad(F)(theta, *(jnp.asarray(a, jnp.float32) for a in (xs, ys)))
for a, b in zip(jax.tree.leaves(bar), jax.tree.leaves(alone)):
    np.testing.assert_allclose(np.asarray(a.addressable_data(0)), b, rtol=1e-4, atol=1e-6)
print("agree", jax.process_count(), len(jax.devices()))
"""


def test_two_processes_over_loopback(tmp_path):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    said = [
        tmp_path / str(rank) for rank in range(2)
    ]  # files: who fills a pipe while the other is awaited stands still
    processes = []
    for rank, path in enumerate(said):
        with path.open("w") as file:
            command = [sys.executable, "-c", PROCESS, str(rank), port]
            processes.append(subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT))
    for process, path in zip(processes, said, strict=True):
        assert process.wait(timeout=240) == 0, path.read_text()
        assert "agree 2 2" in path.read_text()


def test_no_gradient_goes_through_the_aux():
    model = jb.rnn(jb.cells.elman(), jb.readouts.linear())
    theta = model.init(jax.random.key(0), input_size=3, hidden_size=4, output_size=2)
    F = jb.data_parallel(jb.objective(model, jb.losses.l2_loss, has_aux=True))
    xs, ys = jnp.ones((5, 2, 3), jnp.float32), jnp.ones((5, 2, 2), jnp.float32)
    bars = jax.jit(jax.grad(lambda theta: jnp.sum(F(theta, xs, ys)[1].y_hats)))(theta)
    assert all(not jnp.any(bar) for bar in jax.tree.leaves(bars))
