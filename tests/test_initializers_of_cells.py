"""What cells do with initialisers: their defaults, one of another kind in each gate, and a user's own."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxbptt as jb
from jaxbptt import initializers
from tests.cases import in_turn
from tests.initial_matrices import DTYPES, MATRICES, d, key, n, rounding, wide

GATES = {"linear": 1, "elman": 1, "gru": 3, "lstm": 4}


def gates_of(leaf, name):
    return np.split(wide(leaf), GATES[name])


def test_chrono_keeps_memories_as_long_as_it_says():
    """σ(b) = 1 - 1/(1 + e^b) keeps a memory for 1 + e^b ∈ [2, T_max] steps, both in the LSTM and in the GRU."""
    for make, row in ((jb.cells.lstm, "b"), (jb.cells.gru, "b_x")):
        arguments = {f"{row}_init": initializers.chrono(20), "W_h_init": initializers.zeros}
        theta_h = make(**arguments).init(key, input_size=d, hidden_size=500, dtype=jnp.float64)
        keep = 1 / (1 + np.exp(-np.asarray(getattr(theta_h, row))[500:1000]))
        lasts = 1 / (1 - keep)
        assert lasts.min() >= 2
        assert lasts.max() <= 20
        assert lasts.max() - lasts.min() > 15


@pytest.mark.parametrize(("name", "dtype"), in_turn(list(GATES), DTYPES, times=2))
def test_defaults_of_the_cells(name, dtype):
    """W_x Glorot, W_h orthogonal, biases 0 but for the LSTM's forget gate at 1; each gate drawn for itself."""
    size, inputs = 24, 40
    theta_h = getattr(jb.cells, name)().init(key, input_size=inputs, hidden_size=size, dtype=dtype)
    assert {leaf.dtype for leaf in theta_h} == {jnp.dtype(dtype)}
    for gate in gates_of(theta_h.W_h, name):
        np.testing.assert_allclose(gate @ gate.T, np.eye(size), atol=rounding(dtype))
    bound = np.sqrt(6 / (size + inputs))  # the fans of one gate, not of all stacked
    for gate in gates_of(theta_h.W_x, name):
        assert 0.95 * bound < np.abs(gate).max() <= bound * (1 + rounding(dtype))
    for leaf in (theta_h.W_x, theta_h.W_h):
        blocks = gates_of(leaf, name)
        for k, gate in enumerate(blocks):
            assert all(np.abs(gate - other).max() > 0.1 for other in blocks[:k])
    for field in set(theta_h._fields) - {"W_x", "W_h"}:
        b = gates_of(getattr(theta_h, field), name)
        wanted = [0, 1, 0, 0] if name == "lstm" else [0] * GATES[name]
        np.testing.assert_array_equal(b, np.outer(wanted, np.ones(size)))


@pytest.mark.parametrize("forget_bias", [0.0, 2.5])
def test_the_forget_bias(forget_bias):
    b = jb.cells.lstm(forget_bias=forget_bias).init(key, input_size=d, hidden_size=n).b
    np.testing.assert_array_equal(np.reshape(b, (4, n)), np.outer([0, forget_bias, 0, 0], np.ones(n)))


@pytest.mark.parametrize(("name", "initializer"), in_turn(list(GATES), list(MATRICES), times=2))
def test_each_initialiser_in_each_cell(name, initializer):
    """What a cell gets as ``W_h_init`` is in each of its gates, to the last bit for the key of that gate."""
    cell = getattr(jb.cells, name)(W_h_init=MATRICES[initializer])
    theta_h = cell.init(key, input_size=d, hidden_size=n, dtype=jnp.float64)
    assert theta_h.W_h.shape == (GATES[name] * n, n)
    for gate in gates_of(theta_h.W_h, name):
        match initializer:
            case "orthogonal":
                np.testing.assert_allclose(gate @ gate.T, 0.81 * np.eye(n), atol=1e-13)
            case "identity":
                np.testing.assert_array_equal(gate, 0.7 * np.eye(n))
            case "spectral_radius":
                np.testing.assert_allclose(np.abs(np.linalg.eigvals(gate)).max(), 0.95, rtol=1e-12)
            case "non_normal":
                np.testing.assert_allclose(np.linalg.matrix_power(gate - 0.5 * np.eye(n), n), 0, atol=1e-12)
            case "glorot_uniform":
                assert np.abs(gate).max() <= np.sqrt(6 / (2 * n))


def _seen(calls, value):
    """An initialiser of a user's that writes down how it was called."""

    def init(key, shape, dtype):
        calls.append((jax.random.key_data(key).tolist(), shape, jnp.dtype(dtype)))
        return jnp.full(shape, value, dtype)

    return init


@pytest.mark.parametrize("name", [*GATES, "readout"])
def test_every_initialiser_can_be_replaced(name):
    """By one of a user's own: it sees one gate's shape, the dtype, and a key that nobody else sees."""
    if name == "readout":
        make, arguments = jb.readouts.linear, {"hidden_size": n, "output_size": d}
        shapes = {"W_o": [(d, n)], "b": [(d,)]}
    else:
        make, arguments = getattr(jb.cells, name), {"input_size": d, "hidden_size": n}
        gates = GATES[name]
        bias = (gates, n) if gates > 1 else (n,)
        fields = {"linear": (), "gru": ("b_x", "b_h")}.get(name, ("b",))
        shapes = {"W_x": [(n, d)] * gates, "W_h": [(n, n)] * gates, **{field: [bias] for field in fields}}
    calls = {field: [] for field in shapes}
    inits = {f"{field}_init": _seen(calls[field], k + 1.0) for k, field in enumerate(shapes)}
    theta = make(**inits).init(key, **arguments, dtype=jnp.float64)
    for k, (field, wanted) in enumerate(shapes.items()):
        assert [shape for _, shape, _ in calls[field]] == wanted
        assert {dtype for _, _, dtype in calls[field]} == {jnp.dtype(jnp.float64)}
        np.testing.assert_array_equal(getattr(theta, field), k + 1.0)
    keys = [str(key) for seen in calls.values() for key, _, _ in seen]
    assert len(set(keys)) == len(keys)


@pytest.mark.parametrize("name", ["gru", "lstm"])
def test_functions_of_jax_can_stand_in(name):
    bias = "b_x_init" if name == "gru" else "b_init"
    cell = getattr(jb.cells, name)(
        W_x_init=jax.nn.initializers.he_normal(in_axis=-1, out_axis=-2),
        W_h_init=jax.nn.initializers.constant(0.25),
        **{bias: jax.nn.initializers.ones},
    )
    theta_h = cell.init(key, input_size=50, hidden_size=40, dtype=jnp.float64)
    np.testing.assert_array_equal(theta_h.W_h, 0.25)
    np.testing.assert_array_equal(getattr(theta_h, bias.removesuffix("_init")), 1)
    for gate in gates_of(theta_h.W_x, name):  # he_normal: variance 2/fan_in, over 2000 numbers
        assert abs(np.mean(gate**2) - 2 / 50) < 5 * (2 / 50) * np.sqrt(2 / 2000)


def test_parameters_differ_by_key_and_not_by_call():
    init = jb.rnn(jb.cells.lstm(), jb.readouts.linear()).init
    sizes = {"input_size": d, "hidden_size": n, "output_size": 2, "dtype": jnp.float64}
    one, same, other = (init(jax.random.key(seed), **sizes) for seed in (3, 3, 4))
    jax.tree.map(np.testing.assert_array_equal, one, same)
    assert np.abs(one.h.W_x - other.h.W_x).min() > 0
    assert np.abs(one.o.W_o - other.o.W_o).min() > 0


def test_layers_are_drawn_apart():
    lower, upper = jb.cells.stacked(jb.cells.elman(), jb.cells.elman()).init(key, n, n, jnp.float64)
    assert np.abs(lower.W_x - upper.W_x).min() > 0
    assert np.abs(lower.W_h - upper.W_h).min() > 0


def test_an_initialiser_may_be_any_function_of_key_shape_and_dtype():
    class Halves:
        def __call__(self, key, shape, dtype=jnp.float32, scale=0.5):
            return scale * np.ones(shape, dtype)

    jitted = jax.jit(jax.nn.initializers.normal(), static_argnums=(1, 2))
    for init in (jitted, Halves(), functools.partial(Halves(), scale=1.0), jax.nn.initializers.he_normal()):
        theta_h = jb.cells.gru(W_h_init=init).init(key, input_size=d, hidden_size=n)
        assert theta_h.W_h.shape == (3 * n, n)
