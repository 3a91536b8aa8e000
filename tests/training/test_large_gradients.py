"""Gradients that are finite, and whose squares are not."""

import math

import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxbptt.training import Batch, fit, trainer
from tests.training.given import STILL, arrays, assert_equal

HUGE, THETA = 3e200, np.array([1.0, -2.0])
CALM, SPIKE = np.array([3.0, 4.0]), np.array([HUGE, -HUGE])
CLIP = optax.clip_by_global_norm(1.0)


def F(theta, xs, ys, h_0=None):
    """Its gradient is xs."""
    return jnp.sum(theta * xs)


def after(optimizer, *gradients, theta=THETA, **options):
    return fit(F, optimizer, theta, [(g, g) for g in gradients], **options)


@pytest.mark.parametrize("gradient", [[3.0, 4.0], [3e200, -4e200], [1e154, 1e154], [np.inf, 1.0], [0.0, 0.0]])
def test_a_norm_does_not_overflow(gradient):
    train, gradient = trainer(F, STILL), np.array(gradient)
    _, metrics = train.step(train.init(THETA), Batch(gradient, gradient))
    np.testing.assert_allclose(metrics.gradient_norm, math.hypot(*gradient), rtol=1e-14)


def test_a_norm_of_many_shows_a_nan():
    """A maximum of so many may lose it."""
    gradient = np.full(5000, HUGE)
    gradient[3] = np.nan
    metrics = after(optax.sgd(0.1), gradient, theta=np.zeros(5000), skip_nonfinite=1).metrics
    assert np.isnan(metrics.gradient_norm).all()
    assert not metrics.finite.any()


LOSES = {
    "clip": optax.chain(CLIP, optax.sgd(0.1)),
    "momentum": optax.chain(CLIP, optax.sgd(0.1, momentum=0.9)),  # θ moves on, as if the gradient were 0
    "adamw": optax.chain(CLIP, optax.adamw(0.1)),
    "block": optax.chain(optax.clip_by_block_rms(1.0), optax.sgd(0.1)),
    "accumulated": optax.MultiSteps(optax.chain(CLIP, optax.sgd(0.1)), 2, accumulator_dtype=jnp.float64),
}
KEEPS = {
    "sgd": optax.sgd(1e-200),
    "sign": optax.sign_sgd(0.1),
    "a rate of 0": optax.chain(CLIP, optax.sgd(0.0)),
    "a sum that is not yet whole": optax.MultiSteps(
        optax.chain(CLIP, optax.sgd(0.1)), 3, accumulator_dtype=jnp.float64
    ),
}


@pytest.mark.usefixtures("standard_promotion")
@pytest.mark.parametrize("optimizer", LOSES.values(), ids=LOSES)
def test_a_gradient_that_the_optimiser_loses_is_a_step_that_is_not_finite(optimizer):
    before = after(optimizer, CALM)
    theta, opt = arrays((before.theta, before.state.opt))
    found = after(optimizer, CALM, SPIKE, skip_nonfinite=1)
    assert found.metrics.finite.tolist() == [True, False]
    np.testing.assert_allclose(found.metrics.gradient_norm, [5, math.hypot(*SPIKE)], rtol=1e-14)
    assert_equal((found.theta, found.state.opt), (theta, opt))


@pytest.mark.usefixtures("standard_promotion")
@pytest.mark.parametrize("optimizer", KEEPS.values(), ids=KEEPS)
def test_an_update_of_0_may_be_meant(optimizer):
    assert after(optimizer, CALM, SPIKE).metrics.finite.tolist() == [True, True]


def test_a_gradient_of_0_is_a_finite_step():
    assert after(LOSES["clip"], 0 * CALM).metrics.finite.tolist() == [True]


def test_the_error_says_which_leaf_was_lost():
    with pytest.raises(FloatingPointError, match=r"step 1 .* the optimiser lost, .* infinite, at `theta`, with loss"):
        after(LOSES["clip"], CALM, SPIKE)


def test_a_leaf_may_be_lost_alone():
    """A clip of each block for itself."""

    def two(theta, xs, ys, h_0=None):
        return F(theta["a"], xs, ys) + F(theta["b"], ys, xs)

    train = trainer(two, LOSES["block"])
    _, metrics = train.step(train.init({"a": THETA, "b": THETA}), Batch(CALM, SPIKE))
    assert not metrics.finite
    assert metrics.leaf == 2 + 2 + 0 + 1  # after ∂F/∂θ, θ and nothing that is kept


@pytest.mark.usefixtures("standard_promotion")
def test_a_square_that_overflows_in_a_sum_of_several_steps():
    """Adam's mean of squares is infinite only when the sum is whole, in a step whose own gradient is small."""
    adam = optax.MultiSteps(optax.adam(0.1), 2, accumulator_dtype=jnp.float64)
    found = after(adam, SPIKE, CALM, skip_nonfinite=1)
    assert found.metrics.finite.tolist() == [True, False]
    assert_equal(found.theta, arrays(THETA))
