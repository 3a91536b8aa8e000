"""Evaluation, and stopping early by it."""

import itertools

import jax
import numpy as np
import pytest

import jaxbptt as jb
from jaxbptt.training import Batch, fit
from tests.cases import oracle, problem
from tests.training.given import (
    BPTT,
    ELMAN,
    GIVEN,
    MODEL,
    SGD,
    arrays,
    assert_equal,
    batches,
    l2,
)


def test_an_evaluation_is_the_mean_over_all_steps_that_count():
    """Batches of different shapes, one with a mask, one with its own h_0; against the NumPy recursion."""
    evaluate = jb.training.evaluator(MODEL, l2)
    mask = np.array([[1, 0, 1], [1, 1, 0], [0, 1, 1], [1, 0, 0]], bool)
    given = [problem(ELMAN, T=4, batch=(3,), seed=1), problem(ELMAN, T=6, batch=(2,), seed=2)]
    given = [one._replace(theta=GIVEN.theta) for one in given]
    total = oracle(given[0], mask)[0] * mask.sum() + oracle(given[1])[0] * 12
    found = evaluate(
        GIVEN.theta,
        [Batch(given[0].xs, given[0].ys, given[0].h_0, mask), Batch(given[1].xs, given[1].ys, given[1].h_0)],
    )
    np.testing.assert_allclose(found, total / (mask.sum() + 12), rtol=1e-12)
    assert isinstance(found, float)


def test_a_second_evaluation_compiles_nothing():
    traces = itertools.count()

    def counted(y_hat_t, y_t):
        next(traces)
        return l2(y_hat_t, y_t)

    data = batches(3)
    first = jb.training.evaluator(MODEL, counted)(GIVEN.theta, data)
    after = next(traces)
    other = jax.tree.map(lambda leaf: leaf + 1, GIVEN.theta)
    assert jb.training.evaluator(MODEL, counted)(other, data) != first
    assert next(traces) == after + 1


def measured(values):
    """An evaluation that gives these numbers, whatever θ is."""
    left = iter(values)
    return lambda theta: next(left)


@pytest.mark.parametrize(
    ("values", "patience", "min_delta", "best", "steps"),
    [
        ([3.0, 2.0, 2.5, 2.4, 1.0], None, 0.0, (1.0, 10), 10),
        ([3.0, 2.0, 2.5, 2.4, 1.0], 2, 0.0, (2.0, 4), 8),
        ([3.0, 2.0, 2.5, 1.0, 1.5], 2, 0.0, (1.0, 8), 10),
        ([3.0, 2.9, 2.8, 2.7, 2.6], 2, 0.5, (3.0, 2), 6),
        ([3.0, 2.0, 2.0, 2.0, 1.0], 2, 0.0, (2.0, 4), 8),  # as good is no better
        ([np.nan, 2.0, np.nan, np.nan, 1.0], 2, 0.0, (2.0, 4), 8),
    ],
)
def test_early_stopping_keeps_the_best(values, patience, min_delta, best, steps):
    thetas = {}
    stopping = jb.training.early_stopping(measured(values), every=2, patience=patience, min_delta=min_delta)

    def keep(progress):
        thetas[progress.step] = arrays(progress.state.theta)

    result = fit(BPTT, SGD, GIVEN.theta, batches(10), steps_per_dispatch=1, callback=[keep, stopping])
    found = result.observed[1]
    assert (float(found.loss), int(found.step)) == best
    assert int(result.state.step) == steps
    assert_equal(found.theta, thetas[best[1]])


def test_observers_hand_on_what_they_measured():
    seen = []
    two = [
        jb.training.early_stopping(measured([1.0, 2.0]), every=4, name="first"),
        jb.training.early_stopping(measured([3.0]), every=6, name="second"),
        lambda progress: seen.append((progress.step, dict(progress.scalars))),
    ]
    fit(BPTT, SGD, GIVEN.theta, batches(8), steps_per_dispatch=2, callback=two)
    assert seen == [(2, {}), (4, {"first": 1.0}), (6, {"second": 3.0}), (8, {"first": 2.0})]


def test_the_multiples_of_every_go_on_where_an_earlier_fit_ended():
    begun, seen = fit(BPTT, SGD, GIVEN.theta, batches(5), steps_per_dispatch=1), []
    fit(BPTT, SGD, begun.state, batches(4), steps_per_dispatch=1, callback=[
        jb.training.early_stopping(measured([1.0]), every=4),
        lambda progress: seen.append((progress.step, dict(progress.scalars))),
    ])  # fmt: skip
    assert seen == [(6, {}), (7, {}), (8, {"validation_loss": 1.0}), (9, {})]


def test_an_evaluation_in_half_precision_does_not_overflow():
    """The sum of 80,000 losses of about 2, and their number, are beyond float16; the mean is not."""
    model = jb.rnn(jb.cells.elman(), jb.readouts.linear())
    theta = model.init(jax.random.key(0), input_size=3, hidden_size=4, output_size=2, dtype=np.float16)
    theta = jax.tree.map(lambda leaf: 0 * leaf, theta)
    batch = (np.ones((100, 800, 3), np.float16), 2 * np.ones((100, 800, 2), np.float16))
    assert jb.training.evaluator(model, l2)(theta, [batch]) == 4.0


def test_an_evaluation_may_be_of_whether_something_holds():
    def correct(y_hat_t, y_t):
        return np.sum(y_t, axis=-1) > 0

    evaluate = jb.training.evaluator(MODEL, correct)
    ys = np.ones_like(GIVEN.ys) * np.array([1, 1, 1, -1])[:, None, None]
    assert evaluate(GIVEN.theta, [(GIVEN.xs, ys)]) == 0.75
