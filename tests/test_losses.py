"""The losses against their formulas in NumPy, and F's mean."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxbptt as jb
from jaxbptt import losses

KEYS = jax.random.split(jax.random.key(0), 4)
y_hat, y = jax.random.normal(KEYS[0], (4, 3, 5)), jax.random.normal(KEYS[1], (4, 3, 5))
labels = jax.random.randint(KEYS[2], (4, 3), 0, 5)
bits = jax.random.bernoulli(KEYS[3], 0.5, (4, 3, 5)).astype(float)


def test_l2():
    np.testing.assert_allclose(losses.l2_loss(y_hat, y), 0.5 * ((np.asarray(y_hat) - y) ** 2).sum(-1), rtol=1e-14)


def test_softmax_cross_entropy():
    p = np.exp(y_hat) / np.exp(y_hat).sum(-1, keepdims=True)
    wanted = -np.log(np.take_along_axis(p, np.asarray(labels)[..., None], -1))[..., 0]
    np.testing.assert_allclose(losses.softmax_cross_entropy(y_hat, labels), wanted, rtol=1e-13)


def test_softmax_cross_entropy_of_many_classes_in_half_precision():
    """The sum of 66,000 exponentials of 0 is beyond float16, its logarithm isn't."""
    logits = jnp.zeros(66_000, jnp.float16)
    L, bar = jax.value_and_grad(losses.softmax_cross_entropy)(logits, jnp.int32(3))
    assert L.dtype == bar.dtype == jnp.float16
    np.testing.assert_allclose(L, np.log(66_000), rtol=1e-3)
    assert bar[3] == -1
    np.testing.assert_allclose(bar[:3], 1 / 66_000, rtol=1e-2)


def test_sigmoid_binary_cross_entropy():
    p = 1 / (1 + np.exp(-np.asarray(y_hat)))
    wanted = -(bits * np.log(p) + (1 - bits) * np.log(1 - p)).sum(-1)
    np.testing.assert_allclose(losses.sigmoid_binary_cross_entropy(y_hat, bits), wanted, rtol=1e-12)


def test_a_label_out_of_range_is_not_silent():
    for label in (-1, 5, 1000):
        value, slope = jax.value_and_grad(losses.softmax_cross_entropy)(y_hat[0, 0], jnp.array(label))
        assert jnp.isnan(value)
        assert not jnp.any(slope)  # it is said so: who ignores a label by a `where` of his own has this one


def test_a_label_may_be_ignored_by_a_where():
    def ignoring(y_hat_t, y_t):
        return jnp.where(y_t >= 0, losses.softmax_cross_entropy(y_hat_t, y_t), 0.0)

    some = labels.at[1:3].set(-1)
    value, slope = jax.value_and_grad(lambda y_hat: ignoring(y_hat, some).sum())(y_hat)
    counted = np.asarray(some >= 0)
    wanted = np.asarray(losses.softmax_cross_entropy(y_hat, labels))[counted].sum()
    np.testing.assert_allclose(value, wanted, rtol=1e-14)
    p = np.exp(y_hat) / np.exp(y_hat).sum(-1, keepdims=True)
    np.testing.assert_allclose(slope, counted[..., None] * (p - np.eye(5)[np.asarray(labels)]), atol=1e-14)


def test_saturated_logits_stay_finite():
    assert losses.softmax_cross_entropy(jnp.array([1e4, 0.0]), jnp.array(1)) == 1e4
    np.testing.assert_allclose(losses.sigmoid_binary_cross_entropy(jnp.array([1e4, -1e4]), jnp.array([0.0, 0.0])), 1e4)


def F(loss, y_hats, ys, weights=None, reduction="mean"):
    """F of predictions, as `objective` makes it, in their dtype."""
    Ls = losses.of_steps(loss, y_hats, ys, weights)
    return losses.reduced(Ls, weights, Ls.shape[0], Ls.shape[1:], reduction).astype(y_hats.dtype)


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_reductions(reduction):
    wanted = getattr(np, reduction)(np.asarray(losses.l2_loss(y_hat, y)))
    np.testing.assert_allclose(F(losses.l2_loss, y_hat, y, reduction=reduction), wanted, rtol=1e-14)


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_masked_reductions(reduction):
    mask = np.asarray(jax.random.bernoulli(KEYS[0], 0.5, (4, 3)))
    wanted = getattr(np, reduction)(np.asarray(losses.l2_loss(y_hat, y))[mask])
    np.testing.assert_allclose(F(losses.l2_loss, y_hat, y, jnp.asarray(mask), reduction), wanted, rtol=1e-14)


def test_a_masked_loss_with_an_infinite_slope_at_zero_has_no_nan():
    def root(y_hat_t, y_t):
        return jnp.sum(jnp.sqrt(jnp.abs(y_hat_t - y_t)), axis=-1)

    mask = jnp.array([True, False])
    y_hats = jnp.array([[4.0], [jnp.nan]])
    bar = jax.grad(lambda y_hats: F(root, y_hats, jnp.zeros((2, 1)), mask))(y_hats)
    np.testing.assert_allclose(bar, [[0.25], [0.0]])


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float16, jnp.bfloat16], ids=lambda dtype: dtype.__name__)
def test_dtypes_are_kept(dtype):
    for loss, target in [
        (losses.l2_loss, y.astype(dtype)),
        (losses.softmax_cross_entropy, labels),
        (losses.sigmoid_binary_cross_entropy, bits.astype(dtype)),
    ]:
        assert loss(y_hat.astype(dtype), target).dtype == dtype
        for mask in (None, jnp.ones((4, 3), bool)):
            assert F(loss, y_hat.astype(dtype), target, mask).dtype == dtype


def test_long_means_in_half_precision_do_not_overflow():
    """The sum of 100,000 losses of 4 is beyond float16, their mean isn't."""
    ones = jnp.full((100_000, 1), jnp.sqrt(8.0), jnp.float16)
    for mask in (None, jnp.ones(100_000, bool)):
        value = F(losses.l2_loss, ones, jnp.zeros_like(ones), mask)
        np.testing.assert_allclose(float(value), 4.0, rtol=2e-3)


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int16", "uint32"])
def test_labels_of_any_integer_dtype(dtype):
    """m itself need not be a number of that dtype."""
    for m in (100, 128, 200, 256, 300):
        label = min(m - 1, jnp.iinfo(dtype).max)
        logits = jnp.log(jnp.arange(1.0, m + 1))
        value = losses.softmax_cross_entropy(logits, jnp.array(label, dtype))
        np.testing.assert_allclose(value, np.log(m * (m + 1) / 2) - np.log(label + 1), rtol=1e-12)


def test_a_target_that_does_not_count_has_no_cotangent():
    y_hats, ys = jnp.ones((4, 2)), jnp.full((4, 2), jnp.nan).at[1].set(3.0)
    bar = jax.grad(lambda ys: jnp.sum(losses.of_steps(jb.losses.l2_loss, y_hats, ys, jnp.arange(4) == 1)))(ys)
    np.testing.assert_array_equal(bar, jnp.zeros((4, 2)).at[1].set(2.0))
