"""Whole runs: cut off anywhere, they end with the bits of one that was left alone."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

pytest.importorskip("orbax.checkpoint")

import jaxbptt as jb
from jaxbptt.training import checkpoints
from tests import survivor
from tests.checkpoints.kept import assert_same, flipped
from tests.training.given import SGD


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed")
    with jax.numpy_dtype_promotion("standard"):
        return folder, survivor.leaves(survivor.train(folder, saver=False))


def assert_as_undisturbed(folder, result, undisturbed):
    path, wanted = undisturbed
    found = survivor.leaves(result)
    assert found.keys() == wanted.keys()
    for name in wanted:
        assert found[name].tobytes() == wanted[name].tobytes(), name
    assert (folder / "metrics.jsonl").read_bytes() == (path / "metrics.jsonl").read_bytes()


def test_two_runs_give_the_same_bits(tmp_path, undisturbed):
    assert_as_undisturbed(tmp_path, survivor.train(tmp_path, saver=False), undisturbed)


def test_a_paused_run_goes_on_to_the_same_bits(tmp_path, undisturbed):
    """As after Ctrl-C: wherever it is paused, the last dispatch included, and without being saved in between."""
    for pause in (4, 52, 100, survivor.STEPS):
        paused = survivor.train(tmp_path, [lambda progress, pause=pause: progress.step >= pause])
        assert int(paused.state.step) == pause
    result = survivor.train(tmp_path, [lambda progress: False])
    assert len(result.metrics.loss) == 0  # it was over
    assert_as_undisturbed(tmp_path, result._replace(observed=result.observed[:2]), undisturbed)


def test_an_error_in_the_midst_costs_no_more_than_the_steps_since_the_last_checkpoint(tmp_path, undisturbed):
    def fails(progress):
        if progress.step == 100:
            raise KeyError("a bug of the user's")

    with pytest.raises(KeyError, match="a bug"):
        survivor.train(tmp_path, [fails])
    taken = []
    result = survivor.train(tmp_path, [lambda progress: taken.append(progress.step)])
    assert taken[0] == 96 + survivor.PER_DISPATCH
    assert_as_undisturbed(tmp_path, result._replace(observed=result.observed[:2]), undisturbed)


def test_a_torn_checkpoint_costs_the_steps_since_the_one_before(tmp_path, undisturbed):
    survivor.train(tmp_path, [lambda progress: progress.step >= 100])
    flipped(tmp_path / "run" / f"{100:012d}" / "state" / "_METADATA")
    with pytest.warns(RuntimeWarning, match=r"that of step 100 is refused.*that of step 96 is used instead"):
        result = survivor.train(tmp_path, [lambda progress: False])
    assert_as_undisturbed(tmp_path, result._replace(observed=result.observed[:2]), undisturbed)


def test_a_run_that_an_observer_ended_is_over(tmp_path):
    def train():
        return survivor.train(tmp_path, [survivor.jb.training.early_stopping(lambda theta: 1.0, every=4, patience=3)])

    first, again = train(), train()
    assert int(first.state.step) == 16  # the first is the best, and three are no better
    assert len(again.metrics.loss) == 0
    for a, b in zip(jax.tree.leaves(first.observed), jax.tree.leaves(again.observed), strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_run_with_other_callbacks_or_settings_is_refused(tmp_path):
    survivor.train(tmp_path, steps=8)
    with pytest.raises(ValueError, match=r"of another model, optimiser or callback: the leaf `\.observed\[2\]\.loss`"):
        survivor.train(tmp_path, [survivor.jb.training.early_stopping(lambda theta: 1.0, every=4)])
    other = checkpoints.saver(tmp_path / "run", every=survivor.EVERY, about={"seed": 4})
    with pytest.raises(ValueError, match="is of another run: seed=3 there, 4 here"):
        survivor.train(tmp_path, saver=other)


def test_a_run_with_another_key_is_refused(tmp_path):
    """It would go on with the key that it has; data and algorithm both tell keys apart, whoever keeps the run."""
    model = jb.rnn(jb.cells.elman(), jb.readouts.linear())
    theta = model.init(jax.random.key(0), input_size=3, hidden_size=4, output_size=2, dtype=jnp.float64)
    estimator, batch = jb.estimators.bptt(model, jb.losses.l2_loss), (np.ones((3, 4, 3)), np.ones((3, 4, 2)))
    kept = {}
    in_memory = jb.training.Saver(1, kept.__setitem__, lambda run: kept[max(kept)] if kept else None)

    def fit(key, steps, saver):
        options = {"key": key, "steps": steps, "checkpoints": saver, "steps_per_dispatch": 1}
        return jb.training.fit(estimator, SGD, theta, lambda k: batch, **options)

    for saver in (in_memory, checkpoints.saver(tmp_path, every=1)):
        fit(jax.random.key(5, impl="rbg"), 1, saver)
        for other in (jax.random.key(6, impl="rbg"), jax.random.key(5), jax.random.key(5, impl="unsafe_rbg")):
            with pytest.raises(ValueError, match=r"`key` would be ignored|\.train\.key"):
                fit(other, 2, saver)
        assert len(fit(jax.random.key(5, impl="rbg"), 2, saver).metrics.loss) == 1


def test_a_longer_run_goes_on_from_a_shorter_one(tmp_path, undisturbed):
    survivor.train(tmp_path, steps=120)
    assert_as_undisturbed(tmp_path, survivor.train(tmp_path), undisturbed)


def test_a_run_split_over_devices_goes_on(tmp_path):
    """What was not put on one device before it was saved is not afterwards: two devices share the next step."""
    model = jb.rnn(jb.cells.elman(), jb.readouts.linear())
    theta = model.init(jax.random.key(0), input_size=3, hidden_size=4, output_size=2, dtype=jnp.float64)
    estimator = jb.estimators.from_objective(jb.data_parallel(jb.objective(model, jb.losses.l2_loss)))
    assert len(jax.devices()) == 2
    xs, ys = np.ones((3, 4, 3)), np.ones((3, 4, 2))

    def fit(folder, steps):
        saver = jb.training.checkpoints.saver(tmp_path / folder, every=1)
        options = {"steps": steps, "steps_per_dispatch": 1, "checkpoints": saver}
        return jb.training.fit(estimator, optax.sgd(0.1), theta, lambda k: (xs, ys), **options).theta

    fit("two", 1)
    for once, twice in zip(jax.tree.leaves(fit("one", 2)), jax.tree.leaves(fit("two", 2)), strict=True):
        np.testing.assert_array_equal(once, twice)


def test_a_run_of_ones_own_F_goes_on_to_the_same_bits(tmp_path):
    """A dict of parameters, a key for each step, and a stream: paused in its midst it is as one that was not."""

    class Aux(NamedTuple):
        h_T: jax.Array

    def F(theta, xs, ys, h_0, *, key):
        kept = jax.random.bernoulli(key, 0.5, xs.shape)
        h_T, hs = jax.lax.scan(lambda h, x: 2 * (jnp.tanh(theta["decay"] * h + x),), h_0, jnp.where(kept, xs, 0))
        return jnp.mean((hs * theta["gains"][0][None] - ys) ** 2), Aux(h_T)

    optimizer = optax.sgd(0.1, momentum=0.9)

    def fit(folder, pause):
        def batch(k):
            rng = np.random.default_rng([1, k])
            return rng.normal(size=(3, 4)), rng.normal(size=(3, 4))

        saver = jb.training.checkpoints.saver(tmp_path / folder, every=2)
        options = {"steps": 9, "steps_per_dispatch": 2, "checkpoints": saver, "key": jax.random.key(5)}
        theta = {"decay": jnp.float64(0.5), "gains": [jnp.ones(4)]}
        options |= {"h_0": jnp.zeros(4), "streaming": True, "callback": lambda progress: progress.step >= pause}
        return jb.training.fit(F, optimizer, theta, batch, **options)

    once, paused = fit("once", 9), fit("twice", 4)
    assert int(paused.state.step) == 4
    again = fit("twice", 9)
    assert len(again.metrics.loss) == 5
    assert_same(again.state, once.state)
    assert not np.array_equal(once.theta["gains"][0], np.ones(4))
