"""Contenders that are timed in turns do what their names say."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxbptt as jb
from experiments.kit import timing
from experiments.study import silent

MODEL = jb.rnn(jb.cells.elman(), jb.readouts.linear())


@pytest.mark.usefixtures("standard_promotion")
def test_one_device_is_one_wherever_theta_lies():
    theta = MODEL.init(jax.random.key(0), input_size=3, hidden_size=5, output_size=2)
    split = jb.estimators.from_objective(jb.data_parallel(jb.objective(MODEL, jb.losses.l2_loss)))
    batch = np.ones((7, 4, 3), np.float32), np.ones((7, 4, 2), np.float32)
    trained = jb.training.fit(split, optax.adam(0.1), theta, [batch] * 2).theta
    assert len(trained.h.W_h.sharding.device_set) == 2  # else there is nothing to see here
    devices = {"one": set(), "both": set()}

    def seen(name, estimator):
        def update(theta, state, xs, ys, *, mask=None, lengths=None, key=None):
            estimate, after = estimator.update(theta, state, xs, ys, mask=mask, lengths=lengths, key=key)
            jax.debug.inspect_array_sharding(
                estimate.loss, callback=lambda sharding: devices[name].add(len(sharding.device_set))
            )
            return estimate, after

        return jb.GradientEstimator(estimator.init, update)

    estimators = {"one": jb.estimators.bptt(MODEL, jb.losses.l2_loss), "both": split}
    stacked = jb.training.Batch(*(jnp.stack([leaf] * 3) for leaf in batch))
    rates = timing.steps_per_second(
        {name: seen(name, one) for name, one in estimators.items()}, optax.adam(0.1), trained, stacked, 2, silent
    )
    assert {name: values.shape for name, values in rates.items()} == {"one": (2,), "both": (2,)}
    assert devices["one"] == {1}
    assert 2 in devices["both"]


def test_what_compiles_is_not_counted():
    """A contender that is slow in its first two calls: the second compiles too where the first moved what it holds."""
    calls = []

    def slow():
        calls.append(len(calls))
        return jnp.ones(())

    times = timing.interleaved({"slow": slow}, 3, silent)
    assert len(calls) == 5
    assert times["slow"].shape == (3,)
