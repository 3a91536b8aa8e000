"""Gradients accumulated over steps, and schedules that count the updates."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxbptt.training import fit
from tests.cases import assert_close, oracle
from tests.training.given import (
    BPTT,
    GIVEN,
    MOMENTUM,
    batches,
)


def test_accumulated_gradients_are_those_of_the_big_batch():
    """k small batches in one update are one batch k times as large, the mean of means of equally many steps."""
    small = batches(6)
    big = [tuple(np.concatenate(parts, axis=1) for parts in zip(*small[k : k + 3], strict=True)) for k in (0, 3)]
    whole = fit(BPTT, MOMENTUM, GIVEN.theta, big)
    accumulated = optax.MultiSteps(MOMENTUM, 3, accumulator_dtype=jnp.float64)
    with jax.numpy_dtype_promotion("standard"):  # the mean over k is taken with a count
        parts = fit(BPTT, accumulated, GIVEN.theta, small, steps_per_dispatch=2)
    assert_close(parts.theta, whole.theta, 1e-11)
    np.testing.assert_allclose(parts.metrics.loss.reshape(2, 3).mean(1), whole.metrics.loss, rtol=1e-11)
    each = fit(BPTT, MOMENTUM, GIVEN.theta, small)
    assert np.max(np.abs(each.theta.h.W_h - whole.theta.h.W_h)) > 1e-3


def test_a_schedule_counts_the_updates():
    rates = np.array([0.125, 0.09375, 0.0625])  # float32 has them exactly, which is what optax computes them in
    schedule = optax.linear_schedule(0.125, 0.0625, 2)
    data, theta = batches(3), GIVEN.theta
    result = fit(BPTT, optax.sgd(schedule), theta, data)
    for (xs, ys), rate in zip(data, rates, strict=True):
        given = GIVEN._replace(theta=theta, xs=xs, ys=ys, h_0=np.zeros_like(GIVEN.h_0))
        theta = jax.tree.map(lambda leaf, bar, r=rate: np.asarray(leaf) - r * bar, theta, oracle(given)[1][0])
    assert_close(result.theta, theta, 1e-10)
