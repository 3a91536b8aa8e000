"""Batches as a function of the step, in an order that is shuffled."""

import numpy as np

import jaxbptt as jb
from jaxbptt.training import fit
from tests.cases import assert_close
from tests.training.given import (
    BPTT,
    GIVEN,
    MOMENTUM,
    batches,
)


def test_batches_may_be_a_function_of_the_step():
    data, asked = batches(7), []

    def batch(k):
        asked.append(k)
        return data[k]

    wanted = fit(BPTT, MOMENTUM, GIVEN.theta, data, steps_per_dispatch=3)
    half = fit(BPTT, MOMENTUM, GIVEN.theta, batch, steps=4, steps_per_dispatch=3)
    whole = fit(BPTT, MOMENTUM, half.state, batch, steps=3, steps_per_dispatch=3)  # goes on at batch 4
    assert asked == list(range(7))
    assert_close(whole.theta, wanted.theta, 1e-11)


def test_a_shuffled_order_is_a_permutation_of_each_pass():
    order = jb.training.shuffled(11, 3, seed=5)
    assert order.per_epoch == 3
    passes = [np.concatenate([order.at(3 * e + k) for k in range(3)]) for e in range(4)]
    for indices in passes:
        assert len(set(indices.tolist())) == 9
        assert set(indices.tolist()) <= set(range(11))
    assert len({tuple(indices) for indices in passes}) == 4
    assert len({frozenset(indices.tolist()) for indices in passes}) > 1  # not always the same two are left out
    backwards = [jb.training.shuffled(11, 3, seed=5).at(k) for k in reversed(range(12))]  # no memory
    np.testing.assert_array_equal(np.concatenate(backwards[::-1]), np.concatenate(passes))
    assert not np.array_equal(jb.training.shuffled(11, 3, seed=6).at(0), order.at(0))
    order.at(0)[:] = -1
    assert order.at(0).min() >= 0
