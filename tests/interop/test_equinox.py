"""What `test_interop` does not ask of equinox: cells as they are made, the bias of n, and no bias at all."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxbptt.interop.equinox import from_equinox
from tests.cases import normal
from tests.interop.test_interop import KINDS, B, d, n, ours, scanned

eqx = pytest.importorskip("equinox")


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("kind", ["gru", "lstm"])
def test_outputs_and_gradients(kind, bias):
    make = {"gru": eqx.nn.GRUCell, "lstm": eqx.nn.LSTMCell}[kind]
    cell = make(d, n, use_bias=bias, dtype=jnp.float64, key=jax.random.key(0))
    cell = jax.tree.map(lambda leaf: leaf + 0.3 * normal(jax.random.key(leaf.size), leaf.shape), cell)
    zero = jnp.zeros((B, n))

    def step(cell, carry, x):
        carry = jax.vmap(cell)(x, carry)
        return carry, carry if kind == "gru" else carry[0]

    hs, bar = scanned(step, cell, zero if kind == "gru" else (zero, zero))
    theta_h = from_equinox(cell)
    assert all(np.any(leaf) for leaf in theta_h[2:]) == bias
    wanted, wanted_bar = ours(KINDS[kind][0], theta_h)
    np.testing.assert_allclose(hs, wanted, rtol=1e-12, atol=1e-12)
    pairs = [(bar.weight_ih, wanted_bar.W_x), (bar.weight_hh, wanted_bar.W_h)]
    if bias and kind == "gru":
        pairs += [(bar.bias, wanted_bar.b_x), (bar.bias_n, wanted_bar.b_h[2 * n :])]
    elif bias:
        pairs += [(bar.bias, wanted_bar.b)]
    for found, leaf in pairs:
        assert np.any(np.asarray(found))
        np.testing.assert_allclose(found, leaf, rtol=1e-12, atol=1e-12)


def test_another_module():
    with pytest.raises(ValueError, match=r"`cell` must be the parameters of an equinox GRUCell or LSTMCell"):
        from_equinox(eqx.nn.Linear(d, n, key=jax.random.key(0)))
