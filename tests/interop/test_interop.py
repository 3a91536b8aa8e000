"""Each library's cell with random weights: outputs and gradients are ours, and the weights come back as they were."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxbptt as jb
from jaxbptt import interop
from tests.cases import normal

C, T, B, d, n = jb.cells, 5, 3, 2, 4
KINDS: dict[str, Any] = {
    "elman": (C.elman(), C.ElmanParams, 1, 1),
    "gru": (C.gru(), C.GRUParams, 3, 2),
    "lstm": (C.lstm(), C.LSTMParams, 4, 1),
}
xs = np.asarray(normal(jax.random.key(1), (T, B, d)))


def drawn(kind, seed=0, biases=None):
    """θ_h of random numbers, all biases of them."""
    _, make, gates, number = KINDS[kind]
    rng = np.random.default_rng(seed)
    shapes = [(gates * n, d), (gates * n, n), *[(gates * n,)] * (number if biases is None else biases)]
    return make(*(rng.standard_normal(shape) * 0.5 for shape in shapes))


def one_hidden_bias(theta_h):
    """Of the GRUs that have b_h for the rows n alone."""
    return theta_h._replace(b_h=np.concatenate([np.zeros(2 * n), theta_h.b_h[2 * n :]]))


def ours(cell, theta_h):
    """Outputs, and the gradient of the sum of their sines by θ_h."""
    h_0 = cell.initial_state(theta_h, (B,))

    def F(theta_h):
        _, hs = jb.unroll(cell, theta_h, jnp.asarray(xs), h_0)
        return jnp.sum(jnp.sin(hs)), hs

    (_, hs), bar = jax.value_and_grad(F, has_aux=True)(jax.tree.map(jnp.asarray, theta_h))
    return np.asarray(hs), bar


def scanned(step, params, carry):
    """The same of a step ``(params, carry, x) -> (carry, output)``."""

    def F(params):
        _, hs = jax.lax.scan(functools.partial(step, params), carry, jnp.asarray(xs))
        return jnp.sum(jnp.sin(hs)), hs

    (_, hs), bar = jax.value_and_grad(F, has_aux=True)(params)
    return np.asarray(hs), bar


def same_bits(left, right):
    assert jax.tree.structure(left) == jax.tree.structure(right)
    for a, b in zip(jax.tree.leaves(left), jax.tree.leaves(right), strict=True):
        np.testing.assert_array_equal(a, b)


def close(left, right):
    for a, b in zip(jax.tree.leaves(left), jax.tree.leaves(right), strict=True):
        assert np.any(np.asarray(b))
        np.testing.assert_allclose(a, b, rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("layers", "directions"), [(1, 1), (2, 1), (2, 2)])
@pytest.mark.parametrize("kind", KINDS)
def test_torch(kind, layers, directions, bias):
    torch = pytest.importorskip("torch")
    make = {"elman": torch.nn.RNN, "gru": torch.nn.GRU, "lstm": torch.nn.LSTM}[kind]
    module = make(d, n, num_layers=layers, bidirectional=directions == 2, bias=bias, dtype=torch.float64)
    state_dict = {name: value.detach().numpy() for name, value in module.state_dict().items()}
    theta_h = interop.torch.from_torch(module.state_dict())
    cell = KINDS[kind][0]
    model = jb.rnn((cell if directions == 1 else jb.bidirectional(cell),) * layers, jb.readouts.identity())

    def F(theta_h):
        hs = model.apply(jb.Theta(theta_h, ()), jnp.asarray(xs))
        return jnp.sum(jnp.sin(hs)), hs

    (_, hs), bar = jax.value_and_grad(F, has_aux=True)(jax.tree.map(jnp.asarray, theta_h))
    outputs, _ = module(torch.tensor(xs))
    torch.sum(torch.sin(outputs)).backward()
    np.testing.assert_allclose(hs, outputs.detach().numpy(), rtol=1e-12, atol=1e-14)
    wanted = interop.torch.from_torch({name: value.grad.numpy() for name, value in module.named_parameters()})
    if kind != "gru" and bias:  # each of two biases has the whole gradient
        wanted = jax.tree.map(lambda leaf: leaf if leaf.ndim == 2 else leaf / 2, wanted)
    close(*((tree if bias else [x for x in jax.tree.leaves(tree) if x.ndim == 2]) for tree in (bar, wanted)))
    back = interop.torch.to_torch(theta_h)
    same_bits(interop.torch.from_torch(back), theta_h)
    if bias:
        assert set(back) == set(state_dict)
        module.load_state_dict({name: torch.tensor(value) for name, value in back.items()})
        np.testing.assert_allclose(module(torch.tensor(xs))[0].detach().numpy(), hs, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("kind", KINDS)
def test_flax_linen(kind):
    linen = pytest.importorskip("flax.linen")
    theta_h = drawn(kind)
    theta_h = one_hidden_bias(theta_h) if kind == "gru" else theta_h
    makes = {"elman": [linen.SimpleCell], "gru": [linen.GRUCell], "lstm": [linen.LSTMCell, linen.OptimizedLSTMCell]}
    params = jax.tree.map(jnp.asarray, interop.flax.to_flax(theta_h))
    same_bits(interop.flax.from_flax(params), theta_h)
    for make in makes[kind]:
        module = make(n, param_dtype=jnp.float64)
        carry = jnp.zeros((B, n)) if kind != "lstm" else (jnp.zeros((B, n)),) * 2
        shapes = jax.eval_shape(module.init, jax.random.key(0), carry, jnp.asarray(xs[0]))["params"]
        assert jax.tree.map(jnp.shape, params) == jax.tree.map(jnp.shape, dict(shapes))
        hs, bar = scanned(
            lambda params, carry, x, module=module: module.apply({"params": params}, carry, x), params, carry
        )
        wanted, wanted_bar = ours(KINDS[kind][0], theta_h)
        np.testing.assert_allclose(hs, wanted, rtol=1e-12, atol=1e-14)
        found = interop.flax.from_flax(bar)
        close(found if kind != "gru" else found[:3], wanted_bar if kind != "gru" else wanted_bar[:3])


@pytest.mark.parametrize("name", ["SimpleCell", "GRUCell", "LSTMCell", "OptimizedLSTMCell"])
def test_flax_nnx(name):
    nnx = pytest.importorskip("flax.nnx")
    cell = getattr(nnx, name)(d, n, dtype=jnp.float64, param_dtype=jnp.float64, rngs=nnx.Rngs(0))
    state = nnx.state(cell, nnx.Param)
    state = jax.tree.map(lambda leaf: leaf + 0.1 * normal(jax.random.key(leaf.size), leaf.shape), state)
    nnx.update(cell, state)
    theta_h = interop.flax.from_flax(nnx.state(cell, nnx.Param))
    h = jnp.zeros((B, n))
    carry, outputs = (h, h) if "LSTM" in name else h, []
    for x in xs:
        carry, output = cell(carry, jnp.asarray(x))
        outputs.append(output)
    kind = {"S": "elman", "G": "gru"}.get(name[0], "lstm")
    np.testing.assert_allclose(ours(KINDS[kind][0], theta_h)[0], np.stack(outputs), rtol=1e-12, atol=1e-14)
    same_bits(interop.flax.from_flax(interop.flax.to_flax(theta_h)), theta_h)


@pytest.mark.parametrize("kind", ["gru", "lstm"])
def test_equinox(kind):
    eqx = pytest.importorskip("equinox")
    theta_h = drawn(kind)
    theta_h = one_hidden_bias(theta_h) if kind == "gru" else theta_h
    arrays = jax.tree.map(jnp.asarray, interop.equinox.to_equinox(theta_h))
    cell = {"gru": eqx.nn.GRUCell, "lstm": eqx.nn.LSTMCell}[kind](d, n, key=jax.random.key(0))
    cell = eqx.tree_at(lambda cell: [getattr(cell, name) for name in arrays], cell, list(arrays.values()))
    same_bits(interop.equinox.from_equinox(cell), theta_h)
    same_bits(interop.equinox.from_equinox(arrays), theta_h)
    zero = jnp.zeros((B, n))

    def step(cell, carry, x):
        carry = jax.vmap(cell)(x, carry)
        return carry, carry if kind == "gru" else carry[0]

    hs, bar = scanned(step, cell, zero if kind == "gru" else (zero, zero))
    wanted, wanted_bar = ours(KINDS[kind][0], theta_h)
    np.testing.assert_allclose(hs, wanted, rtol=1e-12, atol=1e-14)
    close(list(interop.equinox.from_equinox(bar))[:3], list(wanted_bar)[:3])


@pytest.mark.parametrize("kind", KINDS)
def test_haiku(kind):
    hk = pytest.importorskip("haiku")
    theta_h = drawn(kind)
    if kind == "gru":
        theta_h = theta_h._replace(b_h=np.zeros(3 * n))
    if kind == "lstm":  # so that the 1 that is added there can be taken off without rounding
        theta_h = theta_h._replace(b=np.round(theta_h.b * 8) / 8)
    make = {"elman": hk.VanillaRNN, "gru": hk.GRU, "lstm": hk.LSTM}[kind]
    cell = {"elman": C.elman("relu"), "gru": C.gru(reset="before"), "lstm": C.lstm()}[kind]
    core = hk.without_apply_rng(hk.transform(lambda x, carry: make(n)(x, carry)))
    zero = jnp.zeros((B, n))
    carry = hk.LSTMState(zero, zero) if kind == "lstm" else zero
    params = jax.tree.map(jnp.asarray, interop.haiku.to_haiku(theta_h))
    shapes = jax.eval_shape(core.init, jax.random.key(0), jnp.asarray(xs[0]), carry)
    assert jax.tree.map(jnp.shape, params) == jax.tree.map(jnp.shape, dict(shapes))
    same_bits(interop.haiku.from_haiku(params), theta_h)

    def step(params, carry, x):
        output, carry = core.apply(params, x, carry)
        return carry, output

    hs, _ = scanned(step, params, carry)
    np.testing.assert_allclose(hs, ours(cell, theta_h)[0], rtol=1e-12, atol=1e-14)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of Keras with a new NumPy
@pytest.mark.parametrize("reset_after", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_keras(kind, reset_after, monkeypatch):
    """In float32: a SimpleRNN of float64 does not run there."""
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    keras = pytest.importorskip("keras")
    options = {"reset_after": reset_after} if kind == "gru" else {}
    theta_h = jax.tree.map(np.float32, drawn(kind))
    if kind == "gru" and not reset_after:
        theta_h = theta_h._replace(b_h=np.zeros(3 * n, np.float32))
    make = {"elman": keras.layers.SimpleRNN, "gru": keras.layers.GRU, "lstm": keras.layers.LSTM}[kind]
    with jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):
        layer = make(n, return_sequences=True, **options)
        layer.build((B, T, d))
        layer.set_weights(interop.keras.to_keras(theta_h, "after" if reset_after else "before"))
        same_bits(interop.keras.from_keras(layer.get_weights()), theta_h)
        hs = np.asarray(layer(xs.swapaxes(0, 1).astype(np.float32))).swapaxes(0, 1)
    cell = C.gru(reset="before") if kind == "gru" and not reset_after else KINDS[kind][0]
    wide = jax.tree.map(np.float64, theta_h)
    np.testing.assert_allclose(hs, ours(cell, wide)[0], rtol=1e-5, atol=1e-6)
