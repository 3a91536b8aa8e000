"""Several seeds trained as one are those seeds trained one by one."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

pytest.importorskip("matplotlib")

import jaxbptt as jb
from experiments.kit import memory, over_seeds, trained
from experiments.study import silent

S, B, T = 3, 4, 9
SIZES = {"input_size": 2, "hidden_size": 5, "output_size": 1}
ADAM = optax.chain(optax.clip_by_global_norm(0.05), optax.adam(0.01))  # a norm that every seed exceeds


@pytest.fixture(scope="module")
def model():
    return jb.rnn(jb.cells.gru(), jb.readouts.linear())


def draw(rng):
    return memory.adding(rng, T, (B,))


def train(model, *, steps=6, solved=0.0, measure=None):
    theta = over_seeds.init(model, 7, S, **SIZES)
    return over_seeds.train(
        trained.Flags(devices=1),
        jb.estimators.bptt(model, jb.losses.l2_loss),
        ADAM,
        theta,
        over_seeds.batches(draw, 3, S),
        measure or (lambda theta: jnp.linalg.norm(theta.h.W_h, axis=(1, 2))),
        silent,
        name="training",
        steps=steps,
        every=2,
        solved=solved,
    )


def test_each_seed_is_trained_as_if_alone(model):
    curves = train(model)
    assert curves.at.tolist() == [2, 4, 6]
    keys = jax.random.split(jax.random.key(7), S)
    for s in range(S):

        def batch(k, s=s):
            return draw(np.random.default_rng([3, s, k]))

        alone = jb.training.fit(
            jb.estimators.bptt(model, jb.losses.l2_loss), ADAM, model.init(keys[s], **SIZES), batch, steps=6
        )
        for ours, theirs in zip(jax.tree.leaves(curves.theta), jax.tree.leaves(alone.theta), strict=True):
            np.testing.assert_allclose(ours[s], theirs, rtol=2e-4, atol=1e-6)
        np.testing.assert_allclose(curves.values[-1, s], jnp.linalg.norm(alone.theta.h.W_h), rtol=1e-4)
    assert len(np.unique(curves.values[-1])) == S


def test_it_ends_when_every_seed_is_solved_and_not_before(model):
    calls = iter([[0.1, 3.0, 0.2], [0.3, 0.4, 0.1], [0.0, 0.0, 0.0]])
    curves = train(model, steps=60, solved=0.5, measure=lambda theta: next(calls))
    assert curves.at.tolist() == [2, 4]
    assert curves.values.tolist() == [[0.1, 3.0, 0.2], [0.3, 0.4, 0.1]]


def test_no_batch_is_drawn_twice_and_none_is_that_of_the_test():
    batches = over_seeds.batches(draw, 0, S)
    drawn = [batches(k).xs[:, s, :, 0].tobytes() for k in range(4) for s in range(S)]
    drawn += [np.asarray(over_seeds.held_out(draw, 0, which).xs)[..., 0].tobytes() for which in (0, 1)]
    assert len(set(drawn)) == 4 * S + 2
