"""Buffers that are donated, and states carried from batch to batch."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxbptt as jb
from jaxbptt.training import Batch, fit, trainer
from tests import oracles
from tests.cases import assert_close, oracle, problem
from tests.training.given import (
    BPTT,
    ELMAN,
    GIVEN,
    MOMENTUM,
    SGD,
    STILL,
    arrays,
    assert_equal,
    batches,
    estimators,
    l2,
)


def test_what_a_fit_found_outlives_its_state():
    """A step takes the arrays of the state that it is given, and θ is among them."""
    result = fit(BPTT, SGD, GIVEN.theta, batches(2))
    found = arrays(result.theta)
    xs, ys = batches(1)[0]
    trainer(BPTT, SGD).step(result.state, Batch(xs, ys))
    assert_equal(result.theta, found)


def test_the_state_given_is_donated_and_what_the_user_holds_is_not():
    train = trainer(BPTT, MOMENTUM, streaming=True)
    theta, h_0, key = jax.tree.map(jnp.array, (GIVEN.theta, GIVEN.h_0, jax.random.key(1)))
    first = train.init(theta, h_0, key=key)
    second, _ = train.step(first, Batch(GIVEN.xs, GIVEN.ys))
    stacked = Batch(GIVEN.xs[None], GIVEN.ys[None])
    third, _ = train.steps(second, stacked)
    for spent in (first, second):
        assert all(leaf.is_deleted() for leaf in jax.tree.leaves((spent.theta, spent.opt, spent.estimator)))
    for kept in (theta, h_0, key, GIVEN.xs, GIVEN.ys, stacked, third):
        assert not any(leaf.is_deleted() for leaf in jax.tree.leaves(kept))


@pytest.mark.parametrize("steps_per_dispatch", [1, 2])
def test_fit_leaves_theta_alone(steps_per_dispatch):
    theta = jax.tree.map(jnp.array, GIVEN.theta)
    results = [
        fit(BPTT, SGD, theta, batches(4), steps_per_dispatch=steps_per_dispatch) for _ in range(2)
    ]  # the second finds θ as the first did
    assert_equal(results[0].theta, results[1].theta)
    assert_equal(theta, GIVEN.theta)


def test_training_goes_on_from_the_state_of_a_fit():
    data = batches(6)
    half = fit(BPTT, MOMENTUM, GIVEN.theta, data[:3])
    state = half.state
    for xs, ys in data[3:]:
        state, _ = trainer(BPTT, MOMENTUM).step(state, Batch(xs, ys))
    assert_close(state.theta, fit(BPTT, MOMENTUM, GIVEN.theta, data).theta, 1e-11)


@estimators
def test_a_stream_carries_the_state(make):
    """With θ frozen, chunk k starts from the state that NumPy reaches after the chunks before it."""
    given = problem(ELMAN, T=9, batch=(3,), seed=1)
    chunks = [(given.xs[start : start + 3], given.ys[start : start + 3]) for start in (0, 3, 6)]
    result = fit(make(given.model, l2), STILL, given.theta, chunks, h_0=given.h_0, streaming=True, steps_per_dispatch=2)
    hs = oracles.states(ELMAN.step, arrays(given.theta.h), np.asarray(given.xs), np.asarray(given.h_0))
    for k, (xs, ys) in enumerate(chunks):
        chunk = given._replace(xs=xs, ys=ys, h_0=jnp.asarray(hs[3 * k]))
        np.testing.assert_allclose(result.metrics.loss[k], oracle(chunk)[0], rtol=1e-12)
    np.testing.assert_allclose(result.state.estimator.h, hs[9], rtol=1e-12)
    # ... and a batch that is no stream starts anew
    anew = fit(make(given.model, l2), STILL, given.theta, [Batch(*chunk, given.h_0) for chunk in chunks])
    np.testing.assert_allclose(anew.metrics.loss[0], result.metrics.loss[0], rtol=1e-12)
    assert np.all(np.abs(anew.metrics.loss[1:] - result.metrics.loss[1:]) > 1e-3)
    assert anew.state.estimator == ()


def test_a_stream_by_rtrl_carries_the_sensitivity():
    """Chunks of one sequence add up to its whole gradient: with sgd, to one step down that gradient, if θ is frozen.

    θ is frozen by a first-order trick: a tiny rate, whose square is beyond the tolerance.
    """
    given, rate = problem(ELMAN, T=6, batch=(2,), seed=2), 1e-7
    chunks = [(given.xs[start : start + 2], given.ys[start : start + 2]) for start in (0, 2, 4)]
    options: dict[str, Any] = {"h_0": given.h_0, "streaming": True}
    grads = jax.tree.map(lambda leaf: 12 * leaf, oracle(given)[1][0])  # F is the mean of 12 losses

    def descended(make):
        result = fit(make(given.model, l2, reduction="sum"), optax.sgd(rate), given.theta, chunks, **options)
        return jax.tree.map(lambda before, after: (before - after) / rate, given.theta, result.theta)

    assert_close(descended(jb.estimators.rtrl), grads, 1e-5)
    W_h_bar = descended(jb.estimators.bptt).h.W_h  # which truncated backpropagation does not give
    assert np.max(np.abs(W_h_bar - grads.h.W_h)) > 1e-2 * np.max(np.abs(grads.h.W_h))
