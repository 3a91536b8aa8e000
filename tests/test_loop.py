"""Several steps to an iteration, as on an accelerator: the same sums, and no step's in the next one's program."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxbptt as jb
from jaxbptt._time import loop
from tests.cases import ADJOINTS, CELLS, EACH_ADJOINT, assert_close, in_turn, oracle, problem
from tests.jaxprs import equations

SOME = [case for case in CELLS if case.name in ("elman-tanh", "lstm", "stacked", "from_step", "by_hand")]


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


@pytest.mark.parametrize(("case", "adjoint", "T"), in_turn(SOME, ADJOINTS, [19, 3], times=2))
def test_the_gradient_is_the_same(case, adjoint, T):
    """19 steps: two iterations, and a rest of three."""
    given = problem(case, T=T, batch=(2,) if T > 3 else (), seed=T)
    given = given._replace(theta=jax.tree.map(lambda leaf: leaf / 2, given.theta))  # or the longer one explodes
    function, arguments = gradient(given, adjoint)
    value, (theta_bar, h_0_bar) = jax.jit(function)(*arguments)
    wanted_value, (wanted_theta, _, wanted_h_0) = oracle(given)
    np.testing.assert_allclose(value, wanted_value, rtol=1e-12)
    assert_close((theta_bar, h_0_bar), (wanted_theta, wanted_h_0), 1e-10)


@pytest.mark.parametrize("name", ["full", "tangent", "checkpointed"])
def test_eight_steps_to_an_iteration(name, monkeypatch):
    (lstm,) = (case for case in SOME if case.name == "lstm")
    given = problem(lstm, T=40)
    function, arguments = gradient(given, ADJOINTS[name])
    assert {unroll for unroll, _ in loops(function, *arguments)} >= {loop.STEPS_AT_ONCE}
    monkeypatch.undo()  # a CPU
    jax.clear_caches()  # of what was traced
    function, arguments = gradient(given, ADJOINTS[name])
    assert {unroll for unroll, _ in loops(function, *arguments)} == {1}


@pytest.mark.parametrize(("adjoint", "number"), [("full", 2), ("tangent", 2), ("parallel", 1), ("checkpointed", 3)])
def test_products_with_a_vector_are_held_apart(adjoint, number):
    """There are two devices here, on each of which a batch of two may have one member. Of more than that nothing is
    gained, and the states would be written once more."""
    (lstm,) = (case for case in SOME if case.name == "lstm")
    barriers = {}
    for batch in ((3,), (3, 1), (2,), (1,), ()):
        function, arguments = gradient(problem(lstm, T=20, batch=batch), ADJOINTS[adjoint])
        barriers[batch] = [found for unroll, found in loops(function, *arguments) if unroll > 1].count(True)
    assert barriers == {(3,): 0, (3, 1): 0, (2,): number, (1,): number, (): number}


def test_a_batch_of_any_size_may_become_a_vector():
    (lstm,) = (case for case in SOME if case.name == "lstm")
    given = problem(lstm, T=20, batch=(3,))
    (B,) = jax.export.symbolic_shape("b")
    xs, ys = (jax.ShapeDtypeStruct((20, B, leaf.shape[-1]), leaf.dtype) for leaf in (given.xs, given.ys))
    F = jb.objective(given.model, jb.losses.l2_loss)
    assert loops(jax.grad(F), given.theta, xs, ys) == [(loop.STEPS_AT_ONCE, True)] * 2
    program = jax.export.export(jax.jit(jax.grad(F)))(given.theta, xs, ys)
    assert_close(
        program.call(given.theta, given.xs, given.ys), jax.jit(jax.grad(F))(given.theta, given.xs, given.ys), 1e-12
    )


def test_a_rest_is_avoided_where_it_would_be_copied():
    _, arguments = gradient(problem(SOME[0], T=2), None)
    wanted, steps = {5: 8, 63: 8, 64: 8, 784: 8, 1001: 7, 130: 5, 1007: 8}, {}
    for T in wanted:
        xs = jnp.zeros((T, *arguments[1].shape[1:]))
        ((steps[T], _),) = loops(lambda xs: jb.unroll(SOME[0].cell, arguments[0].h, xs, arguments[3]), xs)
    assert steps == wanted


def test_what_a_block_keeps_is_written_at_once():
    """Outside of the loop over its steps."""
    (lstm,) = (case for case in SOME if case.name == "lstm")
    function, arguments = gradient(problem(lstm, T=40), jb.adjoints.checkpointed(slots=20))
    forward = 0
    for scan in equations(jax.make_jaxpr(function)(*arguments).jaxpr):
        if scan.primitive.name == "scan" and scan.params["unroll"] > 1:
            inside = {equation.primitive.name for equation in equations(scan.params["jaxpr"].jaxpr)}
            assert "dynamic_update_slice" not in inside
            forward += "tanh" in inside
    assert forward


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


@pytest.mark.parametrize("name", EACH_ADJOINT)
def test_a_state_that_the_next_step_does_not_read(name):
    """It has no cotangent from there, but is no constant either; and one is a number of Python's."""

    def step(w, x_t, h_tm1):
        h = jnp.tanh(w * h_tm1["h"] + x_t)
        return {"h": h, "y": 2.0 * h, "one": 1.0}

    cell = jb.cells.from_step(step, output=lambda h_t: h_t["y"])
    h_0, xs = {"h": jnp.ones(3), "y": jnp.zeros(3), "one": 1.0}, jnp.ones((9, 3))

    def F(w, adjoint):
        return jnp.sum(jb.unroll(cell, w, xs, h_0, adjoint=adjoint)[1] ** 2)

    w = jnp.float64(0.5)
    gradient, hessian = (jax.jit(of(F), static_argnums=1) for of in (jax.grad, jax.hessian))
    wanted = gradient(w, jb.adjoints.autodiff())
    np.testing.assert_allclose(gradient(w, ADJOINTS[name]), wanted, rtol=1e-12)
    if name.startswith("tangent"):
        pushed = jax.jit(lambda w: jax.jvp(lambda w: F(w, ADJOINTS[name]), (w,), (jnp.ones_like(w),))[1])(w)
        np.testing.assert_allclose(pushed, wanted)
        np.testing.assert_allclose(hessian(w, ADJOINTS[name]), hessian(w, jb.adjoints.autodiff()), rtol=1e-12)


def test_states_that_have_no_derivative_pass_the_barrier():
    """A key and a counter among them."""

    def step(theta_h, x_t, h_tm1):
        h, key, count = h_tm1
        return jnp.tanh(theta_h * jnp.where(count % 3 == 0, 0.0, h) + x_t), key, count + 1

    cell = jb.cells.from_step(step, output=lambda h_t: h_t[0])
    xs, h_0 = jnp.ones((12, 3)), (jnp.ones(3), jax.random.key(0), jnp.int32(0))

    def F(theta_h, adjoint):
        _, hs = jb.unroll(cell, theta_h, xs, h_0, adjoint=adjoint)
        return jnp.sum(hs**2)

    gradient = jax.jit(jax.grad(F), static_argnums=1)
    wanted = gradient(jnp.float64(0.5), jb.adjoints.autodiff())
    for name in ("full", "checkpointed", "tangent"):
        np.testing.assert_allclose(gradient(jnp.float64(0.5), ADJOINTS[name]), wanted, rtol=1e-12)
