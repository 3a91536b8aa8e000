"""Callbacks, observers and savers: what they see, and how they stop a run."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxbptt as jb
from jaxbptt.training import Batch, fit, trainer
from tests.cases import assert_close
from tests.training.given import (
    BPTT,
    GIVEN,
    MOMENTUM,
    SGD,
    STILL,
    arrays,
    assert_equal,
    batches,
)


def test_the_callback_sees_the_progress():
    seen = []

    def callback(progress):
        assert isinstance(progress, jb.training.Progress)
        seen.append((progress.step, progress.metrics, int(progress.state.step), arrays(progress.state.theta)))

    result = fit(BPTT, SGD, GIVEN.theta, batches(6), steps_per_dispatch=3, callback=callback)
    assert [(step, state_step) for step, _, state_step, _ in seen] == [(3, 3), (6, 6)]
    np.testing.assert_array_equal(np.concatenate([metrics.loss for _, metrics, _, _ in seen]), result.metrics.loss)
    assert_equal(seen[-1][3], result.theta)
    halfway = fit(BPTT, SGD, GIVEN.theta, batches(6), steps=3, steps_per_dispatch=3)
    assert_equal(seen[0][3], halfway.theta)


def test_the_callback_can_stop():
    source = iter(batches(12))
    result = fit(
        BPTT,
        SGD,
        GIVEN.theta,
        source,
        steps_per_dispatch=3,
        callback=lambda progress: progress.step >= 6,
    )
    assert len(result.metrics.loss) == int(result.state.step) == 6
    assert len(list(source)) == 6  # no batch is taken that isn't learned from


def test_a_step_takes_a_tuple_as_well():
    xs, ys = batches(1)[0]
    train = trainer(BPTT, SGD)
    (one, _), (same, _) = (train.step(train.init(GIVEN.theta), batch) for batch in (Batch(xs, ys), (xs, ys)))
    assert_equal(one.theta, same.theta)


def test_a_fit_goes_on_from_the_state_of_another():
    data = batches(6)
    half = fit(BPTT, MOMENTUM, GIVEN.theta, data[:3])
    kept = arrays(half.state.theta)
    whole = fit(BPTT, MOMENTUM, half.state, data[3:])
    assert_close(whole.theta, fit(BPTT, MOMENTUM, GIVEN.theta, data).theta, 1e-11)
    assert int(whole.state.step) == 6
    assert_equal(half.state.theta, kept)  # copied, not donated


@pytest.mark.parametrize("answer", [True, np.True_, jnp.array(True)], ids=["python", "numpy", "jax"])
def test_a_callback_pauses_by_any_true(answer):
    result = fit(BPTT, STILL, GIVEN.theta, batches(6), steps_per_dispatch=2, callback=lambda progress: answer)
    assert int(result.state.step) == 2
    assert len(fit(BPTT, STILL, GIVEN.theta, batches(4), callback=lambda progress: progress).metrics.loss) == 4


def test_an_observer_may_keep_the_theta_it_was_given():
    """Each dispatch takes the arrays of the one before, but not what an observer holds."""
    average = jb.training.Observer(
        init=lambda theta: theta,
        update=lambda mean, progress: (
            jax.tree.map(lambda a, b: 0.9 * a + 0.1 * b, mean, progress.state.theta),
            progress,
        ),
    )
    result = fit(BPTT, STILL, GIVEN.theta, batches(4), steps_per_dispatch=2, callback=average)
    assert_close(result.observed, GIVEN.theta, 1e-12)


def test_a_saver_that_keeps_the_run_itself():
    """The docstring's: in a dictionary. What it was given outlives the dispatches, and so what it gives back."""
    kept, data = {}, batches(8)
    saver = jb.training.Saver(2, kept.__setitem__, lambda run: kept[max(kept)] if kept else None)
    options = {"steps": 4, "steps_per_dispatch": 2, "checkpoints": saver}
    fit(BPTT, SGD, GIVEN.theta, lambda k: data[k], **options)
    assert sorted(kept) == [0, 2, 4]
    on = fit(BPTT, SGD, GIVEN.theta, lambda k: data[k], **(options | {"steps": 8}))
    assert_equal(on.theta, fit(BPTT, SGD, GIVEN.theta, data).theta)
    assert np.isfinite(np.asarray(kept[2].train.theta.h.W_h)).all()


def test_a_run_that_was_stopped_is_returned_at_once_from_its_own_state():
    kept = {}
    saver = jb.training.Saver(2, kept.__setitem__, lambda run: kept[max(kept)] if kept else None)
    stop = jb.training.Observer(lambda theta: (), lambda state, progress: (state, progress._replace(stop=True)))
    options = {"steps_per_dispatch": 2, "checkpoints": saver, "callback": stop}
    data = batches(8)
    first = fit(BPTT, SGD, GIVEN.theta, lambda k: data[k], steps=8, **options)
    again = fit(BPTT, SGD, first.state, lambda k: data[k], steps=4, **options)
    assert len(again.metrics.loss) == 0
    assert_equal(again.theta, first.theta)
