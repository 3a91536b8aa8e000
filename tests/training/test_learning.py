"""A task is learned."""

import jax
import numpy as np
import optax
import pytest

import jaxbptt as jb
from jaxbptt.training import fit
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
            yield xs[1:], xs[:-1], mask

    result = fit(make(model, l2), optax.adam(0.02), theta, data(), steps=400, steps_per_dispatch=50)
    forgetful = 0.5
    assert np.mean(result.metrics.loss[:3]) > 0.8 * forgetful
    assert np.mean(result.metrics.loss[-20:]) < 0.1 * forgetful
