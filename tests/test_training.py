"""Training: a step is an optax update from the gradient, and many steps are one step many times."""

import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxbptt as jb
from jaxbptt.training import Batch, fit, trainer
from tests import oracles
from tests.cases import BUILT_IN, CELLS, assert_close, oracle, problem

ELMAN = next(case for case in CELLS if case.name == "elman-tanh")
l2 = jb.losses.l2_loss
ESTIMATORS = {"bptt": jb.estimators.bptt, "rtrl": jb.estimators.rtrl}
estimators = pytest.mark.parametrize("make", ESTIMATORS.values(), ids=ESTIMATORS)

GIVEN = problem(ELMAN, T=4, batch=(3,))
MODEL = GIVEN.model
BPTT = jb.estimators.bptt(MODEL, l2)
# One object each, as whoever makes a new optimiser compiles anew.
SGD = optax.sgd(0.1)
STILL = optax.sgd(0.0)
MOMENTUM = optax.sgd(0.1, momentum=0.9)  # an optimiser with a state


@pytest.fixture
def standard_promotion():
    """Optax's Adam needs it, whatever this library does without."""
    with jax.numpy_dtype_promotion("standard"):
        yield


def batches(number, *, T=4, B=3, seed=0):
    """`number` batches of random numbers, all different, as NumPy arrays."""
    rng = np.random.default_rng(seed)
    return [(rng.normal(size=(T, B, 3)), rng.normal(size=(T, B, 2))) for _ in range(number)]


def with_nan(batch):
    xs, ys = batch
    return xs, np.where(np.arange(ys.size).reshape(ys.shape) == 5, np.nan, ys)


def arrays(tree):
    """Copies on the host: what a state held, whatever is donated later."""
    return jax.tree.map(np.array, tree)


def assert_equal(got, wanted):
    for g, w in zip(jax.tree.leaves(got), jax.tree.leaves(wanted), strict=True):
        np.testing.assert_array_equal(g, w)


# One step


@estimators
@pytest.mark.usefixtures("standard_promotion")
def test_a_step_is_an_optax_update(make):
    optimizer = optax.adamw(0.1, weight_decay=0.5)  # carries a state, and reads θ
    train = trainer(make(MODEL, l2), optimizer)
    state = train.init(GIVEN.theta)
    theta, opt = GIVEN.theta, optimizer.init(GIVEN.theta)
    for k in range(2):
        given = problem(ELMAN, T=4, batch=(3,), seed=k)._replace(theta=theta)
        state, metrics = train.step(state, Batch(given.xs, given.ys, h_0=given.h_0))
        F, (grads, _, _) = oracle(given)
        updates, opt = jax.jit(optimizer.update)(grads, opt, theta)
        theta = jax.tree.map(lambda leaf, update: leaf + update, theta, updates)
        assert_close(state.theta, theta, 1e-10)
        norm = np.sqrt(sum(np.sum(leaf**2) for leaf in jax.tree.leaves(grads)))
        np.testing.assert_allclose(metrics.loss, F, rtol=1e-12)
        np.testing.assert_allclose(metrics.gradient_norm, norm, rtol=1e-10)
        assert bool(metrics.finite)
        assert int(state.step) == k + 1


def test_a_step_of_gradient_descent_by_hand():
    """No optax on this side: θ - η ∂F/∂θ."""
    train = trainer(BPTT, SGD)
    state, _ = train.step(train.init(GIVEN.theta), Batch(GIVEN.xs, GIVEN.ys, h_0=GIVEN.h_0))
    grads = oracle(GIVEN)[1][0]
    assert_close(state.theta, jax.tree.map(lambda leaf, bar: np.asarray(leaf) - 0.1 * bar, GIVEN.theta, grads))


@estimators
def test_masks_and_initial_states_of_a_batch(make):
    mask = np.array([[1, 0, 1], [1, 1, 0], [0, 1, 1], [1, 0, 0]], bool)
    batch = (GIVEN.xs, GIVEN.ys, mask, GIVEN.h_0)
    result = fit(make(MODEL, l2), SGD, GIVEN.theta, [batch])
    F, (grads, _, _) = oracle(GIVEN, mask)
    np.testing.assert_allclose(result.metrics.loss, [F], rtol=1e-12)
    assert_close(result.theta, jax.tree.map(lambda leaf, bar: np.asarray(leaf) - 0.1 * bar, GIVEN.theta, grads))


def test_without_h_0_each_batch_starts_from_the_models_state():
    batch = batches(1)[0]
    result = fit(BPTT, STILL, GIVEN.theta, [batch] * 3)
    at_rest = GIVEN._replace(xs=batch[0], ys=batch[1], h_0=jnp.zeros_like(GIVEN.h_0))
    np.testing.assert_allclose(result.metrics.loss, [oracle(at_rest)[0]] * 3, rtol=1e-12)


# Many steps


@estimators
def test_steps_are_steps_one_by_one(make):
    train = trainer(make(MODEL, l2), MOMENTUM)
    data = batches(5)
    stacked = Batch(*(jnp.stack(leaves) for leaves in zip(*data, strict=True)))
    together, metrics = train.steps(train.init(GIVEN.theta), stacked)
    state, collected = train.init(GIVEN.theta), []
    for xs, ys in data:
        state, one = train.step(state, Batch(xs, ys))
        collected.append(one)
    assert_close(together.theta, state.theta, 1e-12)
    assert_close(together.opt, state.opt, 1e-12)
    assert int(together.step) == int(state.step) == 5
    np.testing.assert_allclose(metrics.loss, [one.loss for one in collected], rtol=1e-12)
    assert len(np.unique(metrics.loss)) == 5  # five batches, five losses


@pytest.mark.parametrize("steps_per_dispatch", [1, 3, 100])
def test_fit_is_the_same_for_any_number_of_steps_a_dispatch(steps_per_dispatch):
    """Eight batches: a rest of 2 after two 3s, and all of them the rest of a hundred."""
    data, steps, state = batches(8), [], trainer(BPTT, MOMENTUM).init(GIVEN.theta)
    losses = []
    for xs, ys in data:
        state, metrics = trainer(BPTT, MOMENTUM).step(state, Batch(xs, ys))
        losses.append(float(metrics.loss))
    result = fit(
        BPTT,
        MOMENTUM,
        GIVEN.theta,
        data,
        steps_per_dispatch=steps_per_dispatch,
        callback=lambda progress: steps.append(progress.step),
    )
    assert_close(result.theta, state.theta, 1e-11)
    np.testing.assert_allclose(result.metrics.loss, losses, rtol=1e-11)
    assert steps == [*range(steps_per_dispatch, 8, steps_per_dispatch), 8]
    assert int(result.state.step) == 8


def test_batches_of_different_shapes():
    """Runs of one shape are cut at each change; the numbers are those of one step after the other."""
    data = [*batches(3), *batches(1, T=6, seed=1), *batches(5, B=2, seed=2), *batches(1, seed=3)]
    steps = []
    result = fit(
        BPTT,
        SGD,
        GIVEN.theta,
        data,
        steps_per_dispatch=2,
        callback=lambda progress: steps.append((progress.step, progress.metrics.loss.shape)),
    )
    assert steps == [(2, (2,)), (3, (1,)), (4, (1,)), (6, (2,)), (8, (2,)), (9, (1,)), (10, (1,))]
    train = trainer(BPTT, SGD)
    state = train.init(GIVEN.theta)
    for xs, ys in data:
        state, _ = train.step(state, Batch(xs, ys))
    assert_close(result.theta, state.theta, 1e-11)


def test_some_batches_with_a_mask_and_some_without():
    plain = batches(4)
    masked = [(xs, ys, np.ones((4, 3), bool)) for xs, ys in plain]
    mixed = [plain[0], masked[1], masked[2], plain[3]]  # a mask that counts all changes nothing
    wanted = fit(BPTT, SGD, GIVEN.theta, plain, steps_per_dispatch=2)
    assert_close(fit(BPTT, SGD, GIVEN.theta, mixed, steps_per_dispatch=2).theta, wanted.theta, 1e-11)


def test_fit_takes_as_many_batches_as_it_says():
    source = iter(batches(9))
    result = fit(BPTT, SGD, GIVEN.theta, source, steps=5, steps_per_dispatch=2)
    assert len(result.metrics.loss) == 5
    assert len(list(source)) == 4
    assert all(isinstance(leaf, np.ndarray) and leaf.shape == (5,) for leaf in result.metrics)


def test_batches_may_come_in_any_form():
    data = batches(4)
    wanted = fit(BPTT, SGD, GIVEN.theta, data)
    as_jax = [tuple(map(jnp.asarray, batch)) for batch in data]
    as_lists = [list(batch) for batch in data]
    for same in (tuple(data), iter(data), (Batch(*batch) for batch in data), as_jax, as_lists):
        assert_close(fit(BPTT, SGD, GIVEN.theta, same).theta, wanted.theta, 1e-12)


# Callbacks


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


# Buffers


def test_the_state_given_is_donated_and_what_the_user_holds_is_not():
    train = trainer(BPTT, MOMENTUM, streaming=True)
    theta, h_0, key = jax.tree.map(jnp.array, (GIVEN.theta, GIVEN.h_0, jax.random.key(1)))
    first = train.init(theta, h_0, key)
    second, _ = train.step(first, Batch(GIVEN.xs, GIVEN.ys))
    stacked = Batch(GIVEN.xs[None], GIVEN.ys[None])
    third, _ = train.steps(second, stacked)
    for spent in (first, second):
        assert all(leaf.is_deleted() for leaf in jax.tree.leaves((spent.theta, spent.opt, spent.estimator)))
    for kept in (theta, h_0, key, GIVEN.xs, GIVEN.ys, stacked, third):
        assert not any(leaf.is_deleted() for leaf in jax.tree.leaves(kept))


@pytest.mark.parametrize("steps_per_dispatch", [1, 2])
def test_fit_leaves_theta_alone(steps_per_dispatch):
    theta = jax.tree.map(jnp.array, GIVEN.theta)
    results = [
        fit(BPTT, SGD, theta, batches(4), steps_per_dispatch=steps_per_dispatch) for _ in range(2)
    ]  # the second finds θ as the first did
    assert_equal(results[0].theta, results[1].theta)
    assert_equal(theta, GIVEN.theta)


def test_training_goes_on_from_the_state_of_a_fit():
    data = batches(6)
    half = fit(BPTT, MOMENTUM, GIVEN.theta, data[:3])
    state = half.state
    for xs, ys in data[3:]:
        state, _ = trainer(BPTT, MOMENTUM).step(state, Batch(xs, ys))
    assert_close(state.theta, fit(BPTT, MOMENTUM, GIVEN.theta, data).theta, 1e-11)


# Streams


@estimators
def test_a_stream_carries_the_state(make):
    """With θ frozen, chunk k starts from the state that NumPy reaches after the chunks before it."""
    given = problem(ELMAN, T=9, batch=(3,), seed=1)
    chunks = [(given.xs[start : start + 3], given.ys[start : start + 3]) for start in (0, 3, 6)]
    result = fit(make(given.model, l2), STILL, given.theta, chunks, h_0=given.h_0, streaming=True, steps_per_dispatch=2)
    hs = oracles.states(ELMAN.step, arrays(given.theta.h), np.asarray(given.xs), np.asarray(given.h_0))
    for k, (xs, ys) in enumerate(chunks):
        chunk = given._replace(xs=xs, ys=ys, h_0=jnp.asarray(hs[3 * k]))
        np.testing.assert_allclose(result.metrics.loss[k], oracle(chunk)[0], rtol=1e-12)
    np.testing.assert_allclose(result.state.estimator.h, hs[9], rtol=1e-12)
    # ... and a batch that is no stream starts anew
    anew = fit(make(given.model, l2), STILL, given.theta, [(*chunk, None, given.h_0) for chunk in chunks])
    np.testing.assert_allclose(anew.metrics.loss[0], result.metrics.loss[0], rtol=1e-12)
    assert np.all(np.abs(anew.metrics.loss[1:] - result.metrics.loss[1:]) > 1e-3)
    assert anew.state.estimator == ()


def test_a_stream_by_rtrl_carries_the_sensitivity():
    """Chunks of one sequence add up to its whole gradient: with sgd, to one step down that gradient, if θ is frozen.

    θ is frozen by a first-order trick: a tiny rate, whose square is beyond the tolerance.
    """
    given, rate = problem(ELMAN, T=6, batch=(2,), seed=2), 1e-7
    chunks = [(given.xs[start : start + 2], given.ys[start : start + 2]) for start in (0, 2, 4)]
    options: dict[str, Any] = {"h_0": given.h_0, "streaming": True}
    grads = jax.tree.map(lambda leaf: 12 * leaf, oracle(given)[1][0])  # F is the mean of 12 losses

    def descended(make):
        result = fit(make(given.model, l2, reduction="sum"), optax.sgd(rate), given.theta, chunks, **options)
        return jax.tree.map(lambda before, after: (before - after) / rate, given.theta, result.theta)

    assert_close(descended(jb.estimators.rtrl), grads, 1e-5)
    W_h_bar = descended(jb.estimators.bptt).h.W_h  # which truncated backpropagation does not give
    assert np.max(np.abs(W_h_bar - grads.h.W_h)) > 1e-2 * np.max(np.abs(grads.h.W_h))


# NaN


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
    def update(theta, state, xs, ys, mask=None, key=None):
        leaves = [jnp.ones_like(value) for value in jax.tree.leaves(theta)]
        if leaf is not None:
            leaves[leaf[0]] = leaves[leaf[0]].at[(0,) * leaves[leaf[0]].ndim].set(jnp.inf)
        loss = jnp.float64(jnp.nan if leaf is None else 0)
        return jb.Estimate(loss, jax.tree.unflatten(jax.tree.structure(theta), leaves), ()), state

    broken = jb.GradientEstimator(lambda theta, h_0=None: (), update)
    with pytest.raises(FloatingPointError, match=message):
        fit(broken, SGD, GIVEN.theta, batches(1))


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


# Keys


def _noise(theta, state, xs, ys, mask=None, key=None):
    """An estimator that shows its key: F is a draw from it."""
    grads = jax.tree.map(jnp.zeros_like, theta)
    return jb.Estimate(jax.random.uniform(key, dtype=jnp.float64), grads, ()), state


NOISE = jb.GradientEstimator(lambda theta, h_0=None: (), _noise)


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


# Compilation


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


# Accumulation and schedules


def test_accumulated_gradients_are_those_of_the_big_batch():
    """k small batches in one update are one batch k times as large, the mean of means of equally many steps."""
    small = batches(6)
    big = [tuple(np.concatenate(parts, axis=1) for parts in zip(*small[k : k + 3], strict=True)) for k in (0, 3)]
    whole = fit(BPTT, MOMENTUM, GIVEN.theta, big)
    accumulated = optax.MultiSteps(MOMENTUM, 3, accumulator_dtype=jnp.float64)
    with jax.numpy_dtype_promotion("standard"):  # the mean over k is taken with a count
        parts = fit(BPTT, accumulated, GIVEN.theta, small, steps_per_dispatch=2)
    assert_close(parts.theta, whole.theta, 1e-11)
    np.testing.assert_allclose(parts.metrics.loss.reshape(2, 3).mean(1), whole.metrics.loss, rtol=1e-11)
    each = fit(BPTT, MOMENTUM, GIVEN.theta, small)
    assert np.max(np.abs(each.theta.h.W_h - whole.theta.h.W_h)) > 1e-3


def test_a_schedule_counts_the_updates():
    rates = np.array([0.125, 0.09375, 0.0625])  # float32 has them exactly, which is what optax computes them in
    schedule = optax.linear_schedule(0.125, 0.0625, 2)
    data, theta = batches(3), GIVEN.theta
    result = fit(BPTT, optax.sgd(schedule), theta, data)
    for (xs, ys), rate in zip(data, rates, strict=True):
        given = GIVEN._replace(theta=theta, xs=xs, ys=ys, h_0=np.zeros_like(GIVEN.h_0))
        theta = jax.tree.map(lambda leaf, bar, r=rate: np.asarray(leaf) - r * bar, theta, oracle(given)[1][0])
    assert_close(result.theta, theta, 1e-10)


# Batches by number


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


# Validation


def test_an_evaluation_is_the_mean_over_all_steps_that_count():
    """Batches of different shapes, one with a mask, one with its own h_0; against the NumPy recursion."""
    evaluate = jb.training.evaluator(MODEL, l2)
    mask = np.array([[1, 0, 1], [1, 1, 0], [0, 1, 1], [1, 0, 0]], bool)
    given = [problem(ELMAN, T=4, batch=(3,), seed=1), problem(ELMAN, T=6, batch=(2,), seed=2)]
    given = [one._replace(theta=GIVEN.theta) for one in given]
    total = oracle(given[0], mask)[0] * mask.sum() + oracle(given[1])[0] * 12
    found = evaluate(
        GIVEN.theta,
        [(given[0].xs, given[0].ys, mask, given[0].h_0), Batch(given[1].xs, given[1].ys, None, given[1].h_0)],
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


# Dtypes


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
    batch = (xs, ys, None, h_0)
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


# Learning


LEARNERS = [(case, jb.estimators.bptt) for case in BUILT_IN] + [(ELMAN, jb.estimators.rtrl)]


@pytest.mark.usefixtures("standard_promotion")
@pytest.mark.parametrize(("case", "make"), LEARNERS, ids=[f"{case.name}-{make.__name__}" for case, make in LEARNERS])
def test_a_task_is_learned(case, make):
    """y_t = x_{t-1}, white noise: without memory nothing is better than to predict 0, at a loss of ½ E‖y‖².

    A tenth of that takes a state that holds x_{t-1}.
    """
    model = jb.rnn(case.cell, jb.readouts.linear())
    theta = model.init(jax.random.key(0), input_size=1, hidden_size=6, output_size=1)
    rng = np.random.default_rng(0)

    def data():
        mask = np.broadcast_to(np.arange(10)[:, None] > 0, (10, 16))  # the first target was never shown
        while True:
            xs = rng.normal(size=(11, 16, 1)).astype(np.float32)
            yield xs[1:], xs[:-1], mask

    result = fit(make(model, l2), optax.adam(0.02), theta, data(), steps=400, steps_per_dispatch=50)
    forgetful = 0.5
    assert np.mean(result.metrics.loss[:3]) > 0.8 * forgetful
    assert np.mean(result.metrics.loss[-20:]) < 0.1 * forgetful


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


def test_a_large_gradient_in_half_precision_is_finite():
    """Its norm is taken in float32: 300² is beyond float16."""
    given = problem(ELMAN, T=3, batch=(2,), dtype=jnp.float16)
    loud = jb.estimators.bptt(given.model, lambda y_hat_t, y_t: 200 * l2(y_hat_t, y_t), reduction="sum")
    train = trainer(loud, STILL)
    _, metrics = train.step(train.init(given.theta), Batch(given.xs, given.ys))
    assert metrics.gradient_norm.dtype == jnp.float32
    assert metrics.gradient_norm > 256
    assert metrics.finite
