"""What `test_interop` does not ask of haiku: gradients, weights as it draws them, more than one core."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxbptt as jb
from jaxbptt.interop.haiku import from_haiku, to_haiku
from tests.cases import normal
from tests.interop.test_interop import B, d, n, ours, scanned, xs

hk = pytest.importorskip("haiku")
CELLS = {"elman": jb.cells.elman("relu"), "gru": jb.cells.gru(reset="before"), "lstm": jb.cells.lstm()}
CORES = {"elman": hk.VanillaRNN, "gru": hk.GRU, "lstm": hk.LSTM}


@pytest.mark.parametrize("kind", CELLS)
def test_outputs_and_gradients(kind):
    core = hk.without_apply_rng(hk.transform(lambda x, carry: CORES[kind](n)(x, carry)))
    zero = jnp.zeros((B, n))
    carry = hk.LSTMState(zero, zero) if kind == "lstm" else zero
    params = core.init(jax.random.key(0), jnp.asarray(xs[0]), carry)
    params = jax.tree.map(lambda leaf: leaf + 0.3 * normal(jax.random.key(leaf.size), leaf.shape), params)

    def step(params, carry, x):
        output, carry = core.apply(params, x, carry)
        return carry, output

    hs, bar = scanned(step, params, carry)
    theta_h = from_haiku(params)
    assert all(np.any(leaf) for leaf in theta_h[:3])
    wanted, wanted_bar = ours(CELLS[kind], theta_h)
    np.testing.assert_allclose(hs, wanted, rtol=1e-12, atol=1e-12)
    found = from_haiku(bar)
    if kind == "elman":  # each of two biases has the whole gradient
        found = found._replace(b=found.b / 2)
    if kind == "lstm":  # a gradient has no 1 to add
        found.b[n : 2 * n] -= 1
    for ours_bar, theirs in zip(wanted_bar[:3], found[:3], strict=True):  # the GRU there has no b_h
        assert np.any(np.asarray(ours_bar))
        np.testing.assert_allclose(ours_bar, theirs, rtol=1e-12, atol=1e-12)
    for one, other in zip(jax.tree.leaves(from_haiku(to_haiku(theta_h))), jax.tree.leaves(theta_h), strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=0 if kind != "lstm" else 1e-15)  # 1 off, and on again


def test_two_cores_are_not_taken_for_one():
    def two(x):
        for make in (hk.LSTM, hk.LSTM):
            x, _ = make(n)(x, hk.LSTMState(jnp.zeros((B, n)), jnp.zeros((B, n))))
        return x

    params = hk.transform(two).init(jax.random.key(0), jnp.asarray(xs[0]))
    with pytest.raises(ValueError, match=r"got modules \['lstm/linear', 'lstm_1/linear'\]; pass those of one core"):
        from_haiku(params)
    assert from_haiku({"lstm_1/linear": params["lstm_1/linear"]}).W_x.shape == (4 * n, n)


def test_linear_layers_are_no_core():
    """Two of them have the shapes and, but for a core above them, the names of a VanillaRNN."""
    params = hk.transform(lambda x: hk.Linear(n)(hk.Linear(n)(x))).init(jax.random.key(0), jnp.ones((B, d)))
    assert set(params) == {"linear", "linear_1"}
    with pytest.raises(ValueError, match=r"got modules \['linear', 'linear_1'\]"):
        from_haiku(params)
