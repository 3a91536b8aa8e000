"""Several steps to an iteration, as on an accelerator: the same sums, and no step's in the next one's program."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxbptt as jb
from jaxbptt import _loop
from tests import cases
from tests.cases import ADJOINTS, CELLS, assert_close, oracle, problem
from tests.jaxprs import equations

SOME = [case for case in CELLS if case.name in ("elman-tanh", "lstm", "stacked", "from_step", "by_hand")]
cell_cases = pytest.mark.parametrize("case", SOME, ids=cases.name)


@pytest.fixture(autouse=True)
def _as_on_a_gpu(monkeypatch):
    """Which is all that is asked of JAX; the rest is compiled for this machine."""
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")


def gradient(given, adjoint):
    F = jb.objective(given.model, jb.losses.l2_loss, adjoint=adjoint)
    return jax.value_and_grad(F, argnums=(0, 3)), (given.theta, given.xs, given.ys, given.h_0)


def loops(function, *arguments):
    """How many steps an iteration of each loop has, and whether a barrier is in it."""
    found = []
    for scan in equations(jax.make_jaxpr(function)(*arguments).jaxpr):
        if scan.primitive.name == "scan":
            inside = {equation.primitive.name for equation in equations(scan.params["jaxpr"].jaxpr)}
            found.append((scan.params["unroll"], "optimization_barrier" in inside))
    return found


@cell_cases
@pytest.mark.parametrize("name", ADJOINTS)
def test_the_gradient_is_the_same(case, name):
    """19 steps: two iterations, and a rest of three."""
    for T, batch in ((19, (2,)), (3, ())):
        given = problem(case, T=T, batch=batch, seed=T)
        given = given._replace(theta=jax.tree.map(lambda leaf: leaf / 2, given.theta))  # or the longer one explodes
        function, arguments = gradient(given, ADJOINTS[name])
        value, (theta_bar, h_0_bar) = jax.jit(function)(*arguments)
        wanted_value, (wanted_theta, _, wanted_h_0) = oracle(given)
        np.testing.assert_allclose(value, wanted_value, rtol=1e-12)
        assert_close((theta_bar, h_0_bar), (wanted_theta, wanted_h_0), 1e-10)


@pytest.mark.parametrize("name", ["full", "tangent", "checkpointed"])
def test_eight_steps_to_an_iteration(name, monkeypatch):
    (lstm,) = (case for case in SOME if case.name == "lstm")
    given = problem(lstm, T=40)
    function, arguments = gradient(given, ADJOINTS[name])
    assert {unroll for unroll, _ in loops(function, *arguments)} >= {_loop.STEPS_AT_ONCE}
    monkeypatch.undo()  # a CPU
    jax.clear_caches()  # of what was traced
    function, arguments = gradient(given, ADJOINTS[name])
    assert {unroll for unroll, _ in loops(function, *arguments)} == {1}


@pytest.mark.parametrize(
    ("batch", "n", "held_apart"), [((3,), 4, False), ((1,), 4, True), ((), 4, True), ((3,), 1, True)]
)
def test_products_with_a_vector_are_held_apart(batch, n, held_apart):
    """Where they are products of matrices nothing is gained by it, and the states are written once more."""
    (lstm,) = (case for case in SOME if case.name == "lstm")
    given = problem(lstm, T=20, batch=batch, n=n)
    function, arguments = gradient(given, jb.adjoints.full())
    assert [found for _, found in loops(function, *arguments)] == [held_apart] * 2


@pytest.mark.parametrize("name", ["from_step", "by_hand"])
@pytest.mark.parametrize(("adjoint", "number"), [("full", 2), ("tangent", 2), ("checkpointed", 3)])
def test_steps_of_ones_own_are_held_apart(name, adjoint, number):
    """Whatever is in them. The third loop of `tangent` hands nothing from step to step."""
    (case,) = (case for case in SOME if case.name == name)
    function, arguments = gradient(problem(case, T=20), ADJOINTS[adjoint])
    assert [found for unroll, found in loops(function, *arguments) if unroll > 1].count(True) == number


def test_any_number_of_steps_is_exported_one_to_an_iteration():
    """JAX can't say how many a rest has."""
    (lstm,) = (case for case in SOME if case.name == "lstm")
    given = problem(lstm, T=19)
    (T,) = jax.export.symbolic_shape("t")
    xs = jax.ShapeDtypeStruct((T, *given.xs.shape[1:]), given.xs.dtype)
    apply = jax.jit(lambda theta, xs: given.model.apply(theta, xs, adjoint=jb.adjoints.parallel()))
    y_hats = jax.export.export(apply)(given.theta, xs).call(given.theta, given.xs)
    assert_close(y_hats, apply(given.theta, given.xs), 1e-12)


def test_states_that_have_no_derivative_pass_the_barrier():
    """A key and a counter among them."""

    def step(theta_h, x_t, h_tm1):
        h, key, count = h_tm1
        key, now = jax.random.split(key)
        drop = jax.random.bernoulli(now, 0.5, h.shape)
        return jnp.tanh(theta_h * jnp.where(drop, 0.0, h) + x_t), key, count + 1

    cell = jb.cells.from_step(step, output=lambda h_t: h_t[0])
    xs, h_0 = jnp.ones((12, 3)), (jnp.ones(3), jax.random.key(0), jnp.int32(0))

    def F(theta_h, adjoint):
        _, hs = jb.unroll(cell, theta_h, xs, h_0, adjoint=adjoint)
        return jnp.sum(hs**2)

    wanted = jax.grad(F)(jnp.float64(0.5), jb.adjoints.autodiff())
    for name in ("full", "checkpointed", "tangent"):
        np.testing.assert_allclose(jax.grad(F)(jnp.float64(0.5), ADJOINTS[name]), wanted, rtol=1e-12)
