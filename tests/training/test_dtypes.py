"""Dtypes are kept, and half precision is enough for none of the sums."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxbptt as jb
from jaxbptt.training import Batch, fit, trainer
from tests.cases import problem
from tests.training.given import (
    ELMAN,
    GIVEN,
    MODEL,
    MOMENTUM,
    STILL,
    l2,
)


@pytest.mark.parametrize(
    ("make", "dtype", "skip_nonfinite"),
    [
        (jb.estimators.bptt, jnp.float32, None),
        (jb.estimators.bptt, jnp.bfloat16, 2),
        (jb.estimators.rtrl, jnp.bfloat16, None),
    ],
    ids=["bptt-float32", "bptt-bfloat16-skip", "rtrl-bfloat16"],
)
def test_dtypes_are_kept(make, dtype, skip_nonfinite):
    theta, xs, ys, h_0 = jax.tree.map(
        lambda leaf: np.asarray(leaf).astype(dtype), (GIVEN.theta, GIVEN.xs, GIVEN.ys, GIVEN.h_0)
    )
    batch = Batch(xs, ys, h_0)
    result = fit(
        make(MODEL, l2),
        MOMENTUM,
        theta,
        [batch] * 2,
        steps_per_dispatch=2,
        skip_nonfinite=skip_nonfinite,
    )
    assert {leaf.dtype for leaf in jax.tree.leaves(result.theta)} == {jnp.dtype(dtype)}
    assert result.metrics.loss.dtype == dtype
    assert result.metrics.gradient_norm.dtype == (jnp.float32 if jnp.dtype(dtype).itemsize < 4 else dtype)
    assert result.metrics.loss[-1] < result.metrics.loss[0]


def test_a_large_gradient_in_half_precision_is_finite():
    """Its norm is taken in float32: 300² is beyond float16."""
    given = problem(ELMAN, T=3, batch=(2,), dtype=jnp.float16)
    loud = jb.estimators.bptt(given.model, lambda y_hat_t, y_t: 200 * l2(y_hat_t, y_t), reduction="sum")
    train = trainer(loud, STILL)
    _, metrics = train.step(train.init(given.theta), Batch(given.xs, given.ys))
    assert metrics.gradient_norm.dtype == jnp.float32
    assert metrics.gradient_norm > 256
    assert metrics.finite
