"""What `test_interop` does not ask of Keras: gradients, float64, more than a layer."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxbptt.cells import gru
from jaxbptt.interop.keras import from_keras, to_keras
from tests.interop.test_interop import KINDS, B, T, d, drawn, n, ours, xs

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of Keras with a new NumPy
CASES = {
    "elman": ("SimpleRNN", "elman", {}),
    "gru": ("GRU", "gru", {}),
    "gru-before": ("GRU", "gru", {"reset_after": False}),
    "lstm": ("LSTM", "lstm", {}),
}


@pytest.fixture
def keras(monkeypatch):
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    keras = pytest.importorskip("keras")
    with jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):
        yield keras


@pytest.mark.parametrize("case", CASES)
def test_outputs_and_gradients(case, keras):
    """With JAX's own tanh: that of Keras is of float32, in a layer of float64 as well."""
    make, kind, options = CASES[case]
    theta_h = drawn(kind)
    if options:
        theta_h = theta_h._replace(b_h=np.zeros(3 * n))
    layer = getattr(keras.layers, make)(n, activation=jnp.tanh, return_sequences=True, dtype="float64", **options)
    layer.build((B, T, d))
    layer.set_weights(to_keras(theta_h, "before" if options else "after"))
    fixed, inputs = [seed.value for seed in layer.non_trainable_variables], jnp.asarray(xs.swapaxes(0, 1))

    def F(weights):
        hs, _ = layer.stateless_call(weights, fixed, inputs)
        return jnp.sum(jnp.sin(hs)), hs

    weights = [jnp.asarray(array) for array in layer.get_weights()]
    (_, hs), bar = jax.value_and_grad(F, has_aux=True)(weights)
    cell = gru(reset="before") if options else KINDS[kind][0]
    wanted, wanted_bar = ours(cell, theta_h)
    np.testing.assert_allclose(hs.swapaxes(0, 1), wanted, rtol=1e-12, atol=1e-12)
    leaves = slice(3) if options else slice(4)  # with one bias there, b_h has no gradient of its own
    for found, leaf in zip(from_keras(bar)[leaves], wanted_bar[leaves], strict=True):
        assert np.any(np.asarray(leaf))
        np.testing.assert_allclose(found, leaf, rtol=1e-12, atol=1e-12)


def test_no_bias(keras):
    layer = keras.layers.LSTM(n, use_bias=False)
    layer.build((B, T, d))
    assert not np.any(from_keras(layer.get_weights()).b)


def test_two_directions_are_two_layers(keras):
    layer = keras.layers.Bidirectional(keras.layers.LSTM(n))
    layer.build((B, T, d))
    with pytest.raises(ValueError, match=r"one layer, .*: got 6 of them; pass `layer.get_weights\(\)`"):
        from_keras(layer.get_weights())
    assert from_keras(layer.backward_layer.get_weights()).W_x.shape == (4 * n, d)
