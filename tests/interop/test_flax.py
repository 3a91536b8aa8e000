"""What `test_interop` does not ask of flax: gradients of nnx, the GRU's bias of h, pure dicts, more than a cell."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxbptt.interop.flax import from_flax, to_flax
from tests.cases import normal
from tests.interop.test_interop import KINDS, B, d, drawn, n, one_hidden_bias, ours, same_bits, scanned, xs

linen, nnx = pytest.importorskip("flax.linen"), pytest.importorskip("flax.nnx")


@pytest.mark.parametrize("name", ["SimpleCell", "GRUCell", "LSTMCell", "OptimizedLSTMCell"])
def test_gradients_of_nnx(name):
    cell = getattr(nnx, name)(d, n, dtype=jnp.float64, param_dtype=jnp.float64, rngs=nnx.Rngs(0))
    graph, state = nnx.split(cell)
    state = jax.tree.map(lambda leaf: leaf + 0.3 * normal(jax.random.key(leaf.size), leaf.shape), state)
    h = jnp.zeros((B, n))

    def F(state):
        cell, carry, outputs = nnx.merge(graph, state), (h, h) if "LSTM" in name else h, []
        for x in xs:
            carry, output = cell(carry, jnp.asarray(x))
            outputs.append(output)
        hs = jnp.stack(outputs)
        return jnp.sum(jnp.sin(hs)), hs

    (_, hs), bar = jax.value_and_grad(F, has_aux=True)(state)
    theta_h = from_flax(state)
    same_bits(from_flax(nnx.to_pure_dict(state)), theta_h)
    assert all(np.any(leaf) for leaf in theta_h[:3])
    wanted, wanted_bar = ours(KINDS[{"S": "elman", "G": "gru"}.get(name[0], "lstm")][0], theta_h)
    np.testing.assert_allclose(hs, wanted, rtol=1e-12, atol=1e-12)
    for found, leaf in zip(from_flax(bar)[:3], wanted_bar[:3], strict=True):  # the GRU there has no b_h
        assert np.any(np.asarray(leaf))
        np.testing.assert_allclose(found, leaf, rtol=1e-12, atol=1e-12)


def test_the_bias_of_h_in_the_gru():
    theta_h = one_hidden_bias(drawn("gru"))
    module = linen.GRUCell(n, param_dtype=jnp.float64)
    params = jax.tree.map(jnp.asarray, to_flax(theta_h))
    _, bar = scanned(lambda params, *given: module.apply({"params": params}, *given), params, jnp.zeros((B, n)))
    found, wanted = from_flax(bar).b_h[2 * n :], ours(KINDS["gru"][0], theta_h)[1].b_h[2 * n :]
    assert np.all(found)
    np.testing.assert_allclose(found, wanted, rtol=1e-12, atol=1e-12)


def test_two_biases_of_a_gate_become_one():
    """Outputs stay what they were; of the same bits is what comes back of the sum."""
    theta_h = drawn("gru")
    back = from_flax(to_flax(theta_h))
    assert np.any(back.b_x != theta_h.b_x)
    np.testing.assert_allclose(*(ours(KINDS["gru"][0], theta)[0] for theta in (back, theta_h)), rtol=1e-12, atol=1e-12)


def test_more_than_a_cell():
    variables = linen.RNN(linen.GRUCell(n)).init(jax.random.key(0), jnp.ones((B, 5, d), jnp.float32))
    with pytest.raises(ValueError, match=r"got layers \['cell'\].*pass `variables\['params'\]` of the cell alone"):
        from_flax(variables["params"])
    with pytest.raises(ValueError, match=r"got layers \['params'\]"):
        from_flax({"params": variables["params"]["cell"]})
