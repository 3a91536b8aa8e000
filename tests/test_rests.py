"""T that blocks do not divide: the padding is copies, so what f has no value at is not made up for it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxbptt as jb
from tests.cases import assert_close, in_turn

T, B, n = 7, 2, 3
BLOCKS = {
    "full": jb.adjoints.full(block=3),
    "full-states": jb.adjoints.full(block=3, residuals="states"),
    "tangent": jb.adjoints.tangent(block=3),
    "checkpointed": jb.adjoints.checkpointed(3, block=3),
    "checkpointed-states": jb.adjoints.checkpointed(3, block=2, residuals="states"),
}
adjoints = pytest.mark.parametrize("name", BLOCKS)
KEYS = jax.random.split(jax.random.key(0), 4)
W = 0.5 * jax.random.normal(KEYS[0], (n, n))
H_0 = jax.random.normal(KEYS[1], (B, n))


def python_loop(step):
    """An adjoint that is the definition."""

    def adjoint(cell, theta_h, xs, h_0):
        hs = [h_0]
        for t in range(T):
            hs.append(step(theta_h, jax.tree.map(lambda leaf, t=t: leaf[t], xs), hs[-1]))
        return hs[-1], jnp.stack(hs[1:])

    return adjoint


def assert_the_gradient_is_that_of_a_loop(step, theta_h, xs, name, of_inputs=False):
    cell = jb.cells.from_step(step)

    def F(theta_h, xs, h_0, adjoint):
        h_T, hs = adjoint(cell, theta_h, xs, h_0)
        return jnp.sum(jnp.sin(hs)) + jnp.sum(h_T**2)

    argnums = (0, 1, 2) if of_inputs else (0, 2)
    found, wanted = (
        jax.jit(jax.value_and_grad(F, argnums=argnums), static_argnums=3)(theta_h, xs, H_0, adjoint)
        for adjoint in (BLOCKS[name], python_loop(step))
    )
    np.testing.assert_allclose(found[0], wanted[0], rtol=1e-12)
    assert_close(found[1], wanted[1])


@pytest.mark.parametrize(("name", "where"), in_turn(list(BLOCKS), ["input", "state"]))
def test_what_is_singular_at_zero(where, name):
    """A norm and a logarithm, of which neither the value nor the derivative is a number at 0."""

    def step(theta_h, x_t, h_tm1):
        length = jnp.linalg.norm(x_t if where == "input" else h_tm1, axis=-1, keepdims=True)
        return jnp.tanh(h_tm1 @ theta_h + x_t / length + 0.1 * jnp.log(length))

    xs = jax.random.normal(KEYS[2], (T, B, n))
    assert_the_gradient_is_that_of_a_loop(step, W, xs, name, of_inputs=True)


@adjoints
def test_tokens(name):
    def step(theta_h, token_t, h_tm1):
        return jnp.tanh(h_tm1 @ theta_h["W"] + theta_h["embedding"][token_t])

    theta_h = {"W": W, "embedding": jax.random.normal(KEYS[2], (5, n))}
    assert_the_gradient_is_that_of_a_loop(step, theta_h, jax.random.randint(KEYS[3], (T, B), 0, 5), name)


@pytest.mark.parametrize(("name", "per"), in_turn(list(BLOCKS), ["step", "member"]))
def test_keys(per, name):
    """One a step, or one for each member, beside numbers: what is drawn is drawn alike in the pass back."""

    def step(theta_h, inputs_t, h_tm1):
        x_t, key_t = inputs_t
        if per == "step":
            kept = jax.random.bernoulli(key_t, 0.5, h_tm1.shape)
        else:
            kept = jax.vmap(lambda key: jax.random.bernoulli(key, 0.5, (n,)))(key_t)
        return jnp.tanh(jnp.where(kept, h_tm1, 0.0) @ theta_h + x_t)

    keys = jax.random.split(KEYS[3], (T,) if per == "step" else (T, B))
    assert_the_gradient_is_that_of_a_loop(step, W, (jax.random.normal(KEYS[2], (T, B, n)), keys), name)
