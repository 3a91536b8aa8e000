"""Nothing is compiled twice."""

import itertools

import jax
import numpy as np

import jaxbptt as jb
from jaxbptt.training import Batch, fit, trainer
from tests.cases import assert_close
from tests.training.given import (
    BPTT,
    GIVEN,
    MODEL,
    MOMENTUM,
    batches,
    l2,
)


def test_a_second_fit_compiles_nothing():
    traces = itertools.count()

    def counted(y_hat_t, y_t):
        next(traces)
        return l2(y_hat_t, y_t)

    def run(seed):
        estimator = jb.estimators.bptt(MODEL, counted)  # made anew each time: factories are cached
        fit(estimator, MOMENTUM, GIVEN.theta, batches(5, seed=seed), steps_per_dispatch=2, skip_nonfinite=3)
        return next(traces)

    first = run(0)
    assert first > 0
    assert run(1) == first + 1  # nothing but the counting itself
    assert trainer(BPTT, MOMENTUM) is trainer(BPTT, optimizer=MOMENTUM, streaming=False)


def test_steps_compile_once_for_each_shape():
    traces = itertools.count()

    def counted(y_hat_t, y_t):
        next(traces)
        return l2(y_hat_t, y_t)

    train = trainer(jb.estimators.bptt(MODEL, counted), MOMENTUM)
    state, seen = train.init(GIVEN.theta), []
    for T in (4, 4, 5, 4, 5):
        ((xs, ys),) = batches(1, T=T)
        state, _ = train.step(state, Batch(xs, ys))
        seen.append(next(traces))
    news = np.diff([-1, *seen]) > 1
    assert news.tolist() == [True, False, True, False, False]


def test_a_step_may_be_part_of_a_larger_program():
    train, (xs, ys) = trainer(BPTT, MOMENTUM), batches(1)[0]
    wanted, _ = train.step(train.init(GIVEN.theta), Batch(xs, ys))
    found = jax.jit(lambda theta: train.step(train.init(theta), Batch(xs, ys))[0].theta)(GIVEN.theta)
    assert_close(found, wanted.theta, 1e-12)
