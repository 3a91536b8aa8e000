"""A batch of which no step counts moves nothing, and ends no run."""

import jax
import numpy as np
import pytest

import jaxbptt as jb
from jaxbptt.training import Batch, fit, trainer
from tests.training.given import BPTT, GIVEN, MODEL, MOMENTUM, arrays, assert_equal, batches, l2, with_nan

XS, YS = batches(1)[0]
ALL, NONE, NO_STEP = np.ones((4, 3), bool), np.zeros((4, 3), bool), np.zeros(3, np.int32)
SHORT, LATE = np.array([1, 2, 0]), np.arange(4)[:, None] >= np.array([1, 2, 0])
EMPTY = {
    "mask": {"mask": NONE},
    "weights": {"mask": 0.0 * NONE},
    "lengths": {"lengths": NO_STEP},
    "both": {"mask": ALL, "lengths": NO_STEP},
    "only padding": {"mask": LATE, "lengths": SHORT},
}
LAST = jb.estimators.from_objective(jb.objective(MODEL, l2, at="last"))


def moved(estimator, empty, ys=YS):
    """A batch, then one that may be empty: the run, and the one without it."""
    first = Batch(XS, ys)
    data = [first, first._replace(**empty)]
    return fit(estimator, MOMENTUM, GIVEN.theta, data), fit(estimator, MOMENTUM, GIVEN.theta, data[:1])


@pytest.mark.parametrize("empty", EMPTY.values(), ids=EMPTY)
def test_a_batch_of_which_no_step_counts_is_left_out(empty):
    found, wanted = moved(BPTT, empty)
    assert_equal((found.theta, found.state.opt), (wanted.theta, wanted.state.opt))
    assert found.metrics.finite.tolist() == [True, False]
    assert found.metrics.skipped.tolist() == [0, 0]
    assert (int(found.state.step), int(found.state.skipped.in_a_row), int(found.state.skipped.total)) == (2, 0, 1)


@pytest.mark.parametrize(
    ("last", "counts"),
    [
        ({"mask": np.zeros(3, bool)}, False),
        ({"mask": np.array([True, True, False]), "lengths": np.array([0, 0, 2])}, False),
        ({"mask": np.array([True, True, False]), "lengths": np.array([0, 1, 2])}, True),
    ],
)
def test_of_the_last_steps_too(last, counts):
    found, _ = moved(LAST, last, ys=YS[0])
    assert found.metrics.finite.tolist() == [True, counts]


def test_one_step_that_counts_is_enough():
    one = NONE.copy()
    one[2, 1] = True
    for counted in ({"mask": one}, {"lengths": SHORT}, {"mask": ~LATE, "lengths": SHORT}):
        assert moved(BPTT, counted)[0].metrics.finite.tolist() == [True, True]


def test_it_ends_no_row_of_steps_that_are_not_finite():
    bad, empty = Batch(*with_nan((XS, YS))), Batch(XS, YS, mask=NONE)
    mixed = [bad._replace(mask=ALL), empty, empty, bad._replace(mask=ALL)]
    assert fit(BPTT, MOMENTUM, GIVEN.theta, mixed, skip_nonfinite=2).metrics.skipped.tolist() == [1, 1, 1, 2]
    with pytest.raises(FloatingPointError, match="step 3 "):
        fit(BPTT, MOMENTUM, GIVEN.theta, mixed, skip_nonfinite=1)


def test_a_stream_goes_on_through_it():
    """As in a washout: the state after the chunk is what the model says, and stands still where no step is real."""
    for chunk, h_T in (
        (Batch(XS, YS, mask=NONE), MODEL.apply(GIVEN.theta, XS, GIVEN.h_0, return_state=True)[1]),
        (Batch(XS, YS, lengths=NO_STEP), GIVEN.h_0),
    ):
        train = trainer(BPTT, MOMENTUM, streaming=True)
        state, _ = train.step(train.init(GIVEN.theta, GIVEN.h_0), chunk)
        np.testing.assert_allclose(state.estimator.h, h_T, rtol=1e-12)
        assert_equal(state.theta, arrays(GIVEN.theta))


def test_the_mask_of_an_own_F_may_be_of_any_form():
    def F(theta, xs, ys, h_0=None, *, mask=None, lengths=None):
        return jax.tree.reduce(lambda total, leaf: total + (theta * leaf).sum(), mask, 0.0) + (lengths * theta).sum()

    for ones in (np.ones(2), np.zeros(2)):  # it may mean padding by its ones
        given = {"a": ones, "b": np.zeros((3, 5))}
        data = [Batch(XS, YS, mask=given, lengths=np.ones((2, 2)))]
        assert fit(F, MOMENTUM, np.array(2.0), data).metrics.finite.tolist() == [True]
