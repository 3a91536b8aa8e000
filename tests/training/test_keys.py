"""Each step has a key of its own."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxbptt as jb
from jaxbptt.training import fit
from tests.training.given import (
    GIVEN,
    SGD,
    batches,
)


def _noise(theta, state, xs, ys, *, mask=None, lengths=None, key=None):
    """An estimator that shows its key: F is a draw from it."""
    grads = jax.tree.map(jnp.zeros_like, theta)
    return jb.Estimate(jax.random.uniform(key, dtype=jnp.float64), grads, ()), state


NOISE = jb.GradientEstimator(lambda theta, h_0=None, *, key=None: (), _noise)


@pytest.mark.parametrize("steps_per_dispatch", [1, 4])
def test_each_step_has_its_own_key(steps_per_dispatch):
    arguments = (NOISE, SGD, GIVEN.theta, batches(6))
    key = jax.random.key(7)
    losses = fit(*arguments, key=key, steps_per_dispatch=steps_per_dispatch).metrics.loss
    wanted = [jax.random.uniform(jax.random.fold_in(key, k), dtype=jnp.float64) for k in range(6)]
    np.testing.assert_array_equal(losses, wanted)
    assert len(np.unique(losses)) == 6
    other = fit(*arguments, key=jax.random.key(8), steps_per_dispatch=steps_per_dispatch).metrics.loss
    assert not np.any(losses == other)
    # without a key the draws are fixed, and still differ by step
    default = [fit(*arguments, steps_per_dispatch=steps_per_dispatch).metrics.loss for _ in range(2)]
    np.testing.assert_array_equal(*default)
    assert len(np.unique(default[0])) == 6


def test_an_old_style_key_will_do():
    losses = [
        fit(NOISE, SGD, GIVEN.theta, batches(2), key=key).metrics.loss
        for key in (jax.random.PRNGKey(3), jax.random.key(3))
    ]
    np.testing.assert_array_equal(*losses)
