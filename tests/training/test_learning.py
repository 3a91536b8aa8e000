"""A task is learned."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxbptt as jb
from jaxbptt.training import Batch, fit
from tests.cases import BUILT_IN
from tests.training.given import (
    ELMAN,
    l2,
)

LEARNERS = [(case, jb.estimators.bptt) for case in BUILT_IN] + [(ELMAN, jb.estimators.rtrl)]


@pytest.mark.usefixtures("standard_promotion")
@pytest.mark.parametrize(("case", "make"), LEARNERS, ids=[f"{case.name}-{make.__name__}" for case, make in LEARNERS])
def test_a_task_is_learned(case, make):
    """y_t = x_{t-1}, white noise: without memory nothing is better than to predict 0, at a loss of ½ E‖y‖².

    A tenth of that takes a state that holds x_{t-1}.
    """
    model = jb.rnn(case.cell, jb.readouts.linear())
    theta = model.init(jax.random.key(0), input_size=1, hidden_size=6, output_size=1)
    rng = np.random.default_rng(0)

    def data():
        mask = np.broadcast_to(np.arange(10)[:, None] > 0, (10, 16))  # the first target was never shown
        while True:
            xs = rng.normal(size=(11, 16, 1)).astype(np.float32)
            yield Batch(xs[1:], xs[:-1], mask=mask)

    result = fit(make(model, l2), optax.adam(0.02), theta, data(), steps=400, steps_per_dispatch=50)
    forgetful = 0.5
    assert np.mean(result.metrics.loss[:3]) > 0.8 * forgetful
    assert np.mean(result.metrics.loss[-20:]) < 0.1 * forgetful


@pytest.mark.parametrize("make", [jb.estimators.bptt, jb.estimators.rtrl])
def test_complex_parameters_go_downhill(make):
    """θ = z, h_t = z, ŷ_t = (Re z, Im z): F = ½ |z - (3 - 4i)|², and a step of 1 is the whole way."""
    cell = jb.cells.from_step(
        lambda z, x_t, h_tm1: jnp.broadcast_to(z, h_tm1.shape),
        initial_state=lambda z, batch=(): jnp.zeros((*batch, 1), z.dtype),
    )
    readout = jb.readouts.from_apply(lambda none, h_t: jnp.concatenate([jnp.real(h_t), jnp.imag(h_t)], axis=-1))
    train = jb.training.trainer(make(jb.rnn(cell, readout), l2), optax.sgd(1.0))
    state = train.init(jb.Theta(jnp.array([0.0 + 0.0j]), ()))
    state, metrics = train.step(state, (jnp.zeros((3, 2, 1)), jnp.tile(jnp.array([3.0, -4.0]), (3, 2, 1))))
    assert metrics.loss == 12.5
    np.testing.assert_allclose(state.theta.h, [3 - 4j], rtol=1e-15)
