"""A step that is not finite never reaches theta."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxbptt as jb
from jaxbptt.training import Batch, Saver, fit, trainer
from tests.cases import assert_close
from tests.training.given import (
    BPTT,
    GIVEN,
    MODEL,
    MOMENTUM,
    SGD,
    arrays,
    assert_equal,
    batches,
    estimators,
    l2,
    with_nan,
)


@pytest.mark.parametrize("steps_per_dispatch", [1, 2])
def test_a_batch_with_nan_is_skipped(steps_per_dispatch):
    first, second, third = batches(3)
    bad = [first, with_nan(second), third]
    result = fit(BPTT, MOMENTUM, GIVEN.theta, bad, skip_nonfinite=2, steps_per_dispatch=steps_per_dispatch)
    wanted = fit(BPTT, MOMENTUM, GIVEN.theta, [first, third])
    assert_close(result.theta, wanted.theta, 1e-11)
    assert result.metrics.finite.tolist() == [True, False, True]
    assert np.isnan(result.metrics.loss).tolist() == [False, True, False]
    assert np.isnan(result.metrics.gradient_norm).tolist() == [False, True, False]


@pytest.mark.parametrize("steps_per_dispatch", [1, 2])
def test_without_skipping_nan_is_an_error_that_names_step_and_leaf(steps_per_dispatch):
    first, second, third, fourth = batches(4)
    arguments = (BPTT, MOMENTUM, GIVEN.theta, [first, second, with_nan(third), fourth])
    with pytest.raises(FloatingPointError, match=r"step 2 .*∂F/∂θ at `theta\.h\.W_x`, with loss nan"):
        fit(*arguments, steps_per_dispatch=steps_per_dispatch)


def test_only_so_many_steps_in_a_row_are_skipped():
    good, *bad = batches(4)
    bad = [with_nan(batch) for batch in bad]
    two = fit(BPTT, SGD, GIVEN.theta, [good, *bad[:2], good], skip_nonfinite=2)
    assert_close(two.theta, fit(BPTT, SGD, GIVEN.theta, [good, good]).theta, 1e-12)
    assert two.metrics.skipped.tolist() == [0, 1, 2, 0]
    assert (int(two.state.skipped.in_a_row), int(two.state.skipped.total), int(two.state.step)) == (0, 2, 4)
    with pytest.raises(FloatingPointError, match=r"step 3 .*`skip_nonfinite` allows 2 in a row"):
        fit(BPTT, SGD, GIVEN.theta, [good, *bad], skip_nonfinite=2)
    for size in (1, 2, 3):  # the count goes on from one fit to the next
        state = fit(BPTT, SGD, GIVEN.theta, [good, *bad][:size], skip_nonfinite=2).state
        with pytest.raises(FloatingPointError, match="step"):
            fit(BPTT, SGD, state, [good, *bad][size:], skip_nonfinite=2)


@pytest.mark.parametrize(
    ("leaf", "message"),
    [
        ((1, "W_h"), r"the first leaf is ∂F/∂θ at `theta\.h\.W_h`"),
        ((0, "W_x"), r"the first leaf is ∂F/∂θ at `theta\.h\.W_x`"),
        ((4, "b"), r"the first leaf is ∂F/∂θ at `theta\.o\.b`"),
        (None, "every leaf of its gradient is finite, with loss nan"),
    ],
)
def test_the_leaf_that_is_not_finite_is_named(leaf, message):
    def update(theta, state, xs, ys, *, mask=None, lengths=None, key=None):
        leaves = [jnp.ones_like(value) for value in jax.tree.leaves(theta)]
        if leaf is not None:
            leaves[leaf[0]] = leaves[leaf[0]].at[(0,) * leaves[leaf[0]].ndim].set(jnp.inf)
        loss = jnp.float64(jnp.nan if leaf is None else 0)
        return jb.Estimate(loss, jax.tree.unflatten(jax.tree.structure(theta), leaves), ()), state

    broken = jb.GradientEstimator(lambda theta, h_0=None, *, key=None: (), update)
    with pytest.raises(FloatingPointError, match=message):
        fit(broken, SGD, GIVEN.theta, batches(1))


@pytest.mark.parametrize("bad", [1, 2, 3])
def test_what_is_kept_is_from_before_the_error(bad):
    """In the midst of a run and at its end: who goes on from it comes to the bad batch again."""
    data, kept = batches(4), {}
    data[bad] = with_nan(data[bad])
    for every, size in ((2, 1), (2, 3), (100, 2)):
        kept.clear()
        saver = Saver(every, save=kept.__setitem__, restore=lambda run: None)
        with pytest.raises(FloatingPointError, match=f"step {bad} "):
            fit(BPTT, SGD, GIVEN.theta, data.__getitem__, steps=4, steps_per_dispatch=size, checkpoints=saver)
        assert max(kept) <= bad
        assert int(kept[max(kept)].train.skipped.total) == 0


def test_an_update_that_overflows_is_not_made():
    """The gradient is finite, and the step too large for a float."""
    before = arrays(GIVEN.theta)
    huge = optax.chain(optax.scale(1e308), optax.scale(1e308))
    with pytest.raises(FloatingPointError, match=r"the updated θ at `theta\.h\.W_x`"):
        fit(BPTT, huge, GIVEN.theta, batches(1))
    train = trainer(BPTT, huge)
    xs, ys = batches(1)[0]
    state, metrics = train.step(train.init(GIVEN.theta), Batch(xs, ys))
    assert_equal(state.theta, before)
    assert not bool(metrics.finite)
    assert np.isfinite(metrics.gradient_norm)


SPIKE = 1e200  # its square is infinite


def spiked(loss_scale):
    """A batch whose gradient is finite, but not the square of it; the others have `loss_scale` 1."""

    def update(theta, state, xs, ys, *, mask=None, lengths=None, key=None):
        estimate, state = BPTT.update(theta, state, xs, ys, mask=mask, lengths=lengths, key=key)
        scale = jnp.where(jnp.any(ys > 100), loss_scale, 1.0)
        return estimate._replace(grads=jax.tree.map(lambda bar: scale * bar, estimate.grads)), state

    return jb.GradientEstimator(BPTT.init, update)


@pytest.mark.usefixtures("standard_promotion")
@pytest.mark.parametrize(
    ("optimizer", "place"), [(optax.adam(0.01), r"\[0\]\.nu\.h\.W_x"), (optax.rmsprop(0.01), r"\[0\]\.nu\.h\.W_x")]
)
def test_a_gradient_whose_square_overflows_does_not_break_the_optimiser(optimizer, place):
    """Adam divides by the root of what it keeps of the squares: after an infinity a weight would never move again."""
    first, (xs, ys), third = batches(3)
    bad = [first, (xs, ys + 200), third]
    with pytest.raises(FloatingPointError, match=rf"step 1 .*what the optimiser keeps at `opt{place}`"):
        fit(spiked(SPIKE), optimizer, GIVEN.theta, bad)
    result = fit(spiked(SPIKE), optimizer, GIVEN.theta, bad, skip_nonfinite=1)
    wanted = fit(BPTT, optimizer, GIVEN.theta, [first, third])
    assert_close(result.theta, wanted.theta, 1e-11)
    assert result.metrics.finite.tolist() == [True, False, True]


@pytest.mark.usefixtures("standard_promotion")
def test_an_optimiser_may_keep_an_infinity_of_its_own():
    """One that was there from the beginning, or a single number: a bound that is lifted, a Python float."""

    def init(theta):
        return {"there": jnp.full(3, jnp.inf), "bound": jnp.float64(1), "number": 1.0}

    def update(updates, state, theta=None):
        return updates, {**state, "bound": jnp.inf * state["bound"], "number": 2.0}

    optimizer = optax.chain(optax.GradientTransformation(init, update), optax.sgd(1e-210))
    xs, ys = batches(1)[0]
    result = fit(spiked(SPIKE), optimizer, GIVEN.theta, [(xs, ys + 200)])
    assert result.metrics.finite.tolist() == [True]
    assert result.metrics.gradient_norm[0] > 1e190  # beyond what is read without a look at what the optimiser keeps


@estimators
def test_a_stream_keeps_its_state_when_it_skips(make):
    """A NaN in xs spoils the state too, from which a stream would never recover."""
    first, (xs, ys), third = batches(3)
    bad = (np.where(np.arange(xs.size).reshape(xs.shape) == 4, np.nan, xs), ys)
    options: dict[str, Any] = {"h_0": GIVEN.h_0, "streaming": True}
    arguments = (make(MODEL, l2), SGD, GIVEN.theta)
    result = fit(*arguments, [first, bad, third], skip_nonfinite=1, **options)
    wanted = fit(*arguments, [first, third], **options)
    assert_close(result.theta, wanted.theta, 1e-11)
    assert_close(result.state.estimator, wanted.state.estimator, 1e-11)
