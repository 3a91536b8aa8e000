"""An F of the user's own, over parameters of the user's own: no cell, no `Theta`, no estimator of this library."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxbptt as jb
from jaxbptt.training import Batch, fit, trainer
from tests.training.given import MOMENTUM, SGD, STILL, assert_equal

T, B = 4, 3
THETA = {"decay": np.float64(0.7), "gain": np.float64(-0.4)}
H_0 = np.array([0.3, -1.0, 2.0])


class Aux(NamedTuple):
    h_T: Any


def leaky(theta, xs, ys, h_0=None):
    """h_t = decay · h_{t-1} + x_t; F = 1/(T·B) Σ ½ (gain · h_t - y_t)². Returns the state beside F."""

    def step(h_tm1, x_t):
        h_t = theta["decay"] * h_tm1 + x_t
        return h_t, h_t

    h_T, hs = jax.lax.scan(step, jnp.zeros(xs.shape[1:]) if h_0 is None else h_0, xs)
    return jnp.mean(0.5 * (theta["gain"] * hs - ys) ** 2), Aux(h_T)


def value_alone(theta, xs, ys, h_0=None):
    return leaky(theta, xs, ys, h_0)[0]


def by_hand(chunks, h, carried):
    """NumPy's recursion, its derivative carried forward, and SGD with momentum: no JAX."""
    decay, gain, losses, velocity = *THETA.values(), [], np.zeros(2)
    for xs, ys in chunks:
        h_t, sensitivity, F, grads = h, np.zeros(B), 0.0, np.zeros(2)
        for x_t, y_t in zip(xs, ys, strict=True):
            h_tm1, h_t = h_t, decay * h_t + x_t
            sensitivity = h_tm1 + decay * sensitivity
            residual = gain * h_t - y_t
            F += np.sum(0.5 * residual**2) / (T * B)
            grads += np.array([np.sum(residual * gain * sensitivity), np.sum(residual * h_t)]) / (T * B)
        velocity = grads + 0.9 * velocity
        decay, gain = np.array([decay, gain]) - 0.1 * velocity
        losses.append(F)
        h = h_t if carried else h
    return losses, {"decay": decay, "gain": gain}, h


def data(number, seed=0):
    rng = np.random.default_rng(seed)
    return [(rng.normal(size=(T, B)), rng.normal(size=(T, B))) for _ in range(number)]


def assert_near(result, losses, theta):
    np.testing.assert_allclose(result.metrics.loss, losses, rtol=1e-12)
    assert result.theta.keys() == theta.keys()
    for name in theta:
        np.testing.assert_allclose(result.theta[name], theta[name], rtol=1e-12)


@pytest.mark.parametrize("F", [value_alone, leaky, jb.estimators.from_objective(value_alone)])
def test_an_F_of_ones_own_is_trained(F):
    losses, theta, _ = by_hand(data(5), np.zeros(B), carried=False)
    assert_near(fit(F, MOMENTUM, THETA, data(5), steps_per_dispatch=2), losses, theta)


def test_each_batch_may_bring_its_own_h_0():
    losses, theta, _ = by_hand(data(3), H_0, carried=False)
    assert_near(fit(value_alone, MOMENTUM, THETA, [Batch(*batch, H_0) for batch in data(3)]), losses, theta)


@pytest.mark.parametrize("steps_per_dispatch", [1, 2])
def test_a_stream_carries_the_state_that_F_returns(steps_per_dispatch):
    losses, theta, h = by_hand(data(5), H_0, carried=True)
    options: dict[str, Any] = {"streaming": True, "steps_per_dispatch": steps_per_dispatch}
    result = fit(leaky, MOMENTUM, THETA, data(5), h_0=H_0, **options)
    assert_near(result, losses, theta)
    np.testing.assert_allclose(result.state.estimator.h, h, rtol=1e-12)
    # ... and goes on where it was
    half = fit(leaky, MOMENTUM, THETA, data(5)[:2], h_0=H_0, **options)
    assert_near(fit(leaky, MOMENTUM, half.state, data(5)[2:], **options), losses[2:], theta)


def dropout(theta, xs, ys, h_0=None, *, key):
    return value_alone(theta, jnp.where(jax.random.bernoulli(key, 0.5, xs.shape), 2 * xs, 0), ys, h_0)


def test_each_step_has_a_key_of_its_own():
    """One batch again and again, θ at rest: what differs is the key."""
    ((xs, ys),), key = data(1), jax.random.key(3)
    found = [fit(dropout, STILL, THETA, [(xs, ys)] * 4, key=key).metrics.loss for _ in range(2)]
    np.testing.assert_array_equal(*found)
    kept = [np.asarray(jax.random.bernoulli(jax.random.fold_in(key, k), 0.5, xs.shape)) for k in range(4)]
    wanted = [by_hand([(np.where(one, 2 * xs, 0), ys)], np.zeros(B), carried=False)[0][0] for one in kept]
    np.testing.assert_allclose(found[0], wanted, rtol=1e-12)
    assert len(np.unique(found[0])) == 4
    assert not np.any(fit(dropout, STILL, THETA, [(xs, ys)] * 4, key=jax.random.key(4)).metrics.loss == found[0])


@pytest.mark.parametrize("steps_per_dispatch", [1, 4])
def test_F_is_traced_once_for_a_program(steps_per_dispatch):
    calls = []

    def counted(*arguments):
        calls.append(arguments)
        return leaky(*arguments)

    fit(counted, SGD, THETA, data(8), h_0=H_0, streaming=True, steps_per_dispatch=steps_per_dispatch)
    assert len(calls) == 1


def test_F_gets_what_it_takes_by_name_and_its_aux_is_the_info():
    seen = {}

    def F(theta, xs, ys, h_0=None, **given):
        seen.update(given)
        return value_alone(theta, xs, ys, h_0), {"largest": jnp.max(jnp.abs(xs))}

    ((xs, ys),), given = data(1), {"mask": np.ones((T, B), bool), "lengths": np.full(B, T), "key": jax.random.key(0)}
    estimator = jb.estimators.from_objective(F)
    state = estimator.init(THETA, H_0)
    estimate, after = estimator.update(THETA, state, xs, ys, **given)
    assert seen == given
    assert estimate.info["largest"] == np.max(np.abs(xs))
    assert after == state
    seen.clear()
    estimator.update(THETA, state, xs, ys)
    assert seen == {}
    plain = jb.estimators.from_objective(value_alone)
    assert plain.update(THETA, plain.init(THETA), xs, ys, key=given["key"])[0].info == jb.estimators.ObjectiveInfo()


def test_lengths_and_masks_of_a_batch_reach_F():
    def F(theta, xs, ys, h_0=None, *, mask=None, lengths=None):
        counts = mask & (jnp.arange(T)[:, None] < lengths[None])
        return jnp.sum(jnp.where(counts, theta * xs, 0))

    ((xs, ys),) = data(1)
    mask, lengths = np.arange(T * B).reshape(T, B) % 2 == 0, np.array([4, 2, 0])
    result = fit(F, SGD, np.float64(1.0), [Batch(xs, ys, mask=mask, lengths=lengths)])
    np.testing.assert_allclose(result.metrics.loss, [np.sum(xs[mask & (np.arange(T)[:, None] < lengths)])], rtol=1e-12)


def test_the_same_F_gives_the_same_trainer():
    assert trainer(leaky, SGD) is trainer(leaky, SGD)
    theta = jax.tree.map(jnp.array, THETA)
    assert_equal(fit(leaky, SGD, theta, data(2)).theta, fit(leaky, SGD, THETA, data(2)).theta)
    assert not any(leaf.is_deleted() for leaf in jax.tree.leaves(theta))
