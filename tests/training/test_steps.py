"""A step is an optimiser's update with the estimator's gradient, and many are one after the other."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxbptt as jb
from jaxbptt.training import Batch, fit, trainer
from tests.cases import assert_close, oracle, problem
from tests.training.given import (
    BPTT,
    ELMAN,
    GIVEN,
    MODEL,
    MOMENTUM,
    SGD,
    STILL,
    batches,
    estimators,
    l2,
)


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
    batch = Batch(GIVEN.xs, GIVEN.ys, GIVEN.h_0, mask)
    result = fit(make(MODEL, l2), SGD, GIVEN.theta, [batch])
    F, (grads, _, _) = oracle(GIVEN, mask)
    np.testing.assert_allclose(result.metrics.loss, [F], rtol=1e-12)
    assert_close(result.theta, jax.tree.map(lambda leaf, bar: np.asarray(leaf) - 0.1 * bar, GIVEN.theta, grads))


def test_without_h_0_each_batch_starts_from_the_models_state():
    batch = batches(1)[0]
    result = fit(BPTT, STILL, GIVEN.theta, [batch] * 3)
    at_rest = GIVEN._replace(xs=batch[0], ys=batch[1], h_0=jnp.zeros_like(GIVEN.h_0))
    np.testing.assert_allclose(result.metrics.loss, [oracle(at_rest)[0]] * 3, rtol=1e-12)


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
    masked = [Batch(xs, ys, mask=np.ones((4, 3), bool)) for xs, ys in plain]
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


@pytest.mark.usefixtures("standard_promotion")
@pytest.mark.parametrize(
    "make",
    [
        lambda: optax.polyak_sgd(max_learning_rate=0.1),
        lambda: optax.chain(optax.sgd(0.1), optax.contrib.reduce_on_plateau(patience=1, factor=0.5, rtol=0.9)),
        lambda: optax.MultiSteps(optax.polyak_sgd(max_learning_rate=0.1), 2),
    ],
    ids=["polyak", "plateau", "accumulated"],
)
def test_an_optimiser_that_wants_the_loss_gets_it(make):
    optimizer, train = make(), trainer(BPTT, make())
    state, theta = train.init(GIVEN.theta), GIVEN.theta
    opt = optimizer.init(theta)
    for batch in batches(4):
        state, _ = train.step(state, batch)
        F, grads = jax.value_and_grad(jb.objective(MODEL, l2))(theta, *batch)
        updates, opt = optimizer.update(grads, opt, theta, value=F)
        theta = optax.apply_updates(theta, updates)
    assert_close(state.theta, theta, 1e-10)
