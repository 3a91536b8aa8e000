"""An adjoint is a value: equal arguments make one object, which says what it is."""

import functools
import pickle
import weakref

import jax
import pytest

import jaxbptt as jb
from tests.cases import CELLS, EACH_ADJOINT, assert_close, oracle, problem

LSTM = next(case for case in CELLS if case.name == "lstm")
MAKES = {
    "full": (jb.adjoints.full, {"block": 3, "residuals": "states"}),
    "tangent": (jb.adjoints.tangent, {"block": 3}),
    "parallel": (jb.adjoints.parallel, {}),
    "autodiff": (jb.adjoints.autodiff, {}),
    "checkpointed": (jb.adjoints.checkpointed, {"slots": 3, "block": 2}),
    "clipped delta": (jb.diagnostics.clipped_delta, {"norm": 1.5}),
}


@pytest.mark.parametrize("name", MAKES)
def test_an_adjoint_is_a_value(name):
    make, arguments = MAKES[name]
    adjoint = make(**arguments)
    assert make(**arguments) is adjoint
    again = pickle.loads(pickle.dumps(adjoint))
    assert again is not adjoint
    assert again == adjoint
    assert hash(again) == hash(adjoint)
    assert weakref.ref(adjoint)() is adjoint
    for field, value in arguments.items():
        assert f"{field}={value!r}" in repr(adjoint)
        assert make(**arguments | {field: "gates" if value == "states" else 2 * value}) != adjoint
    with pytest.raises(AttributeError):
        adjoint.block = 1
    others = [other() for other, _ in MAKES.values() if other not in (make, jb.diagnostics.clipped_delta)]
    assert adjoint not in others


@pytest.mark.parametrize("name", EACH_ADJOINT)
def test_what_it_makes_goes_through_jit_and_remat(name):
    """Which hold on to a function, weakly: F itself, and the adjoint as a static argument."""
    given = problem(LSTM, T=5)
    arguments = given.theta, given.xs, given.ys, given.h_0
    wanted = oracle(given)[1][0]
    F = jb.objective(given.model, jb.losses.l2_loss, adjoint=EACH_ADJOINT[name])
    for transformed in (jax.jit(F), jax.checkpoint(F)):
        assert_close(jax.jit(jax.grad(transformed))(*arguments), wanted)

    @functools.partial(jax.jit, static_argnums=0)
    def gradient(adjoint):
        return jax.grad(jb.objective(given.model, jb.losses.l2_loss, adjoint=adjoint))(*arguments)

    assert_close(gradient(EACH_ADJOINT[name]), wanted)


def test_a_plain_function_is_an_adjoint_too():
    """The readout then has its own rule, as the function does not say that JAX may push forward through it."""
    given = problem(LSTM, T=5)

    def mine(cell, theta_h, xs, h_0):
        return jb.adjoints.full()(cell, theta_h, xs, h_0)

    F = jb.objective(given.model, jb.losses.l2_loss, adjoint=mine)
    assert_close(jax.jit(jax.grad(F))(given.theta, given.xs, given.ys, given.h_0), oracle(given)[1][0])
    y_hats = given.model.apply(given.theta, given.xs, given.h_0, adjoint=mine)
    assert_close(y_hats, given.model.apply(given.theta, given.xs, given.h_0), 1e-12)
