"""A model that reads what it said: beside a loop of NumPy, and beside teacher forcing by the same numbers."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxbptt as jb
from tests import oracles
from tests.cases import CELLS, normal, problem


def case_of(name):
    return next(case for case in CELLS if case.name == name)


@pytest.mark.parametrize("name", ["gru", "lstm", "stacked", "leaky"])
def test_the_closed_loop_and_its_gradient_are_those_of_a_loop(name):
    given = problem(case_of(name), T=1, batch=(), d=2, m=2, n=3, seed=4)
    x_0, steps = given.xs[0], 5
    leaves, structure = jax.tree.flatten((given.theta, x_0, given.h_0))

    def G(arrays):
        theta, x, h = structure.unflatten(arrays)
        total = 0.0
        for t in range(steps):
            h = given.case.step(theta.h, x, h)
            x = theta.o.W_o @ given.case.output(h) + theta.o.b
            total = total + (t + 1) * np.sum(x * x)
        return total

    def F(theta, x_0, h_0):
        y_hats = given.model.generate(theta, x_0, h_0, steps=steps)
        return jnp.sum(jnp.arange(1.0, steps + 1)[:, None] * y_hats * y_hats)

    value, bars = jax.jit(jax.value_and_grad(F, argnums=(0, 1, 2)))(given.theta, x_0, given.h_0)
    np.testing.assert_allclose(value, np.real(G([np.asarray(leaf) for leaf in leaves])), rtol=1e-12)
    for left, right in zip(jax.tree.leaves(bars), oracles.gradient(G, leaves), strict=True):
        assert np.any(right)
        np.testing.assert_allclose(left, right, rtol=1e-10, atol=1e-12)


def network(**options):
    model = jb.rnn((jb.cells.gru(), jb.cells.lstm()), jb.readouts.linear(), **options)
    theta = model.init(jax.random.key(0), input_size=2, hidden_size=(3, 4), output_size=2, dtype=jnp.float64)
    return model, theta, normal(jax.random.key(1), (5, 2))


def test_teacher_forced_by_its_own_words_it_says_the_same():
    model, theta, x_0 = network()
    y_hats = jax.jit(functools.partial(model.generate, steps=6))(theta, x_0)
    assert y_hats.shape == (6, 5, 2)
    forced = model.apply(theta, jnp.concatenate([x_0[None], y_hats[:-1]]))
    np.testing.assert_allclose(y_hats, forced, rtol=1e-12)
    warm, h = model.apply(theta, jnp.concatenate([x_0[None], y_hats[:2]]), return_state=True)
    np.testing.assert_allclose(model.generate(theta, warm[-1], h, steps=3), y_hats[3:], rtol=1e-12)


def test_samples_have_a_key_a_step():
    model, theta, x_0 = network()

    def sample(key_t, y_hat_t):
        return y_hat_t + jax.random.normal(key_t, y_hat_t.shape)

    run = functools.partial(model.generate, theta, x_0, steps=4, sample=sample)
    first, again, other = (run(key=jax.random.key(k)) for k in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    np.testing.assert_array_equal(first[0], other[0])  # before the first sample
    noise = []
    h, x = model.initial_state(theta, (5,)), x_0
    for t in range(4):
        y_hat, h = model.step(theta, x, h)
        np.testing.assert_allclose(y_hat, first[t], rtol=1e-12)
        key_t, _ = jax.random.split(jax.random.fold_in(jax.random.key(0), t))
        noise.append(jax.random.normal(key_t, y_hat.shape))
        x = y_hat + noise[-1]
    assert not np.any(np.isclose(noise[0], noise[1]))
