"""Initial values have the stated property, in every dtype, under jit and vmap."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxbptt import initializers
from tests.cases import in_turn
from tests.initial_matrices import DTYPES, MATRICES, dtypes, key, n, rounding, wide

BIASES: dict[str, Callable] = {
    "zeros": initializers.zeros,
    "gate_bias": initializers.gate_bias(0.5, 1, -2, 0.25),
    "chrono": initializers.chrono(50),
}
ALL = [(name, init, (n, n)) for name, init in MATRICES.items()] + [
    (name, init, (4, n)) for name, init in BIASES.items()
]
RANDOM = {"glorot_uniform", "orthogonal", "spectral_radius", "non_normal", "chrono"}


# For every initialiser


def test_shape_and_dtype_are_those_asked_for():
    for name, init, shape in ALL:
        assert init(key, shape).dtype == jnp.float32  # by default
        for dtype in DTYPES:
            values = init(key, shape, dtype)
            assert (values.shape, values.dtype) == (shape, jnp.dtype(dtype))
            assert np.isfinite(wide(values)).all()
            # the same numbers in every dtype but for rounding, where the draw itself doesn't depend on the dtype
            if name not in RANDOM:
                np.testing.assert_allclose(wide(values), wide(init(key, shape, jnp.float64)), atol=rounding(dtype))


def test_under_jit_and_vmap():
    for name, init, shape in ALL:

        def draw(key, init=init, shape=shape):
            return init(key, shape, jnp.float64)

        np.testing.assert_allclose(jax.jit(draw)(key), draw(key), rtol=1e-12)
        keys = jax.random.split(key, 3)
        together = jax.vmap(draw)(keys)
        for one, each in zip(keys, together, strict=True):
            np.testing.assert_allclose(each, draw(one), rtol=1e-10, atol=1e-12, err_msg=name)
        assert (len(np.unique(together, axis=0)) == 3) == (name in RANDOM)


# Each one's property


@dtypes
def test_orthogonal(dtype):
    """Every singular value is ρ, and so the t-th power has norm ρᵗ."""
    for rho in (1.0, 0.9, 1.3):
        Q = wide(initializers.orthogonal(rho)(key, (n, n), dtype))
        np.testing.assert_allclose(Q @ Q.T, rho**2 * np.eye(n), atol=rho**2 * rounding(dtype))
        if dtype == jnp.float64:
            np.testing.assert_allclose(np.linalg.svd(np.linalg.matrix_power(Q, 20))[1], rho**20, rtol=1e-12)


@pytest.mark.parametrize("shape", [(6, 4), (4, 6)], ids=str)
def test_orthogonal_rectangles(shape):
    """Of rows or of columns, whichever are fewer."""
    Q = np.asarray(initializers.orthogonal()(key, shape, jnp.float64))
    gram = Q @ Q.T if shape[0] < shape[1] else Q.T @ Q
    np.testing.assert_allclose(gram, np.eye(4), atol=1e-14)


def test_orthogonal_is_uniform():
    """Haar's measure: the first column is uniform on the sphere, E[q] = 0 and E[q qᵀ] = I/n, within five deviations."""
    keys = jax.random.split(jax.random.key(1), 4000)
    first = np.asarray(jax.vmap(lambda key: initializers.orthogonal()(key, (3, 3), jnp.float64)[:, 0])(keys))
    assert np.all(np.abs(first.mean(0)) < 5 * np.sqrt(1 / 3 / 4000))
    # Var(q_i²) = 3/15 - 1/9 and Var(q_i q_j) = 1/15 on the sphere in three dimensions
    second = np.einsum("ki,kj->ij", first, first) / 4000
    assert np.all(np.abs(second - np.eye(3) / 3) < 5 * np.sqrt(0.2 / 4000))


@dtypes
def test_identity(dtype):
    np.testing.assert_array_equal(wide(initializers.identity()(key, (5, 5), dtype)), np.eye(5))
    np.testing.assert_array_equal(wide(initializers.identity(-0.5)(key, (5, 5), dtype)), -0.5 * np.eye(5))


@dtypes
def test_spectral_radius(dtype):
    for rho in (0.0, 0.5, 1.1):
        W = wide(initializers.spectral_radius(rho)(key, (n, n), dtype))
        # eigenvalues of a random matrix this small move by a few times what the entries are rounded by
        np.testing.assert_allclose(np.abs(np.linalg.eigvals(W)).max(), rho, atol=10 * rho * rounding(dtype))
        if rho:
            assert np.linalg.norm(W @ W.T - W.T @ W) > 0.1 * np.linalg.norm(W) ** 2  # far from normal


def test_spectral_radius_of_each_matrix_of_a_batch():
    keys = jax.random.split(key, 4)
    W = jax.jit(jax.vmap(lambda key: initializers.spectral_radius(0.8)(key, (n, n), jnp.float64)))(keys)
    np.testing.assert_allclose(np.abs(np.linalg.eigvals(W)).max(-1), 0.8, rtol=1e-12)


@pytest.mark.parametrize(("rho", "strength"), [(0.5, 1.0), (0.9, 0.4), (1.0, 0.0), (-0.3, 2.0)], ids=str)
def test_non_normal(rho, strength):
    """W is a Jordan block in a random orthogonal basis: (W - ρI)/strength is a shift of n places and no more."""
    W = np.asarray(initializers.non_normal(rho, strength)(key, (n, n), jnp.float64))
    S = W - rho * np.eye(n)
    # every eigenvalue is ρ ⟺ S is nilpotent; as a defective eigenvalue is found to ε^(1/n) only, powers say it better
    np.testing.assert_allclose(np.linalg.matrix_power(S, n), 0, atol=1e-12 * max(1, strength) ** n)
    singular = np.linalg.svd(S)[1]
    np.testing.assert_allclose(singular, [strength] * (n - 1) + [0], atol=1e-13)
    if strength:
        assert np.linalg.norm(np.linalg.matrix_power(S, n - 1)) > 0.5 * strength ** (n - 1)
        assert np.abs(np.triu(W, 1)).max() > 0.1 * strength  # and the basis is random:
        assert np.abs(np.tril(W, -1)).max() > 0.1 * strength


@pytest.mark.parametrize("dtype", [jnp.float64, jnp.float32], ids=["float64", "float32"])
def test_non_normal_powers_grow_and_then_vanish(dtype):
    """‖Wᵗ‖ is that of Σ_k C(t, k) ρ^(t-k) strengthᵏ Sᵏ: above 1 at first, 0 in the end. A normal one would be ρᵗ."""
    rho, strength = 0.5, 1.0
    W = wide(initializers.non_normal(rho, strength)(key, (n, n), dtype))
    jordan = rho * np.eye(n) + strength * np.eye(n, k=1)

    def norms(matrix):
        return [np.linalg.norm(np.linalg.matrix_power(matrix, t), 2) for t in (1, 4, 8, 100)]

    np.testing.assert_allclose(norms(W)[:3], norms(jordan)[:3], rtol=100 * rounding(dtype))
    assert norms(W)[2] > norms(W)[1] > norms(W)[0] > 1
    assert norms(W)[3] < 1e-3
    normal = wide(initializers.non_normal(rho, 0.0)(key, (n, n), dtype))
    np.testing.assert_allclose(norms(normal)[2], rho**8, rtol=100 * rounding(dtype))


def test_glorot_uniform():
    """Uniform on ±√(6/(fan_in + fan_out)), so of variance 2/(fan_in + fan_out), with [out, in] as the layout."""
    shape = (300, 700)
    W = np.asarray(initializers.glorot_uniform(key, shape, jnp.float64))
    bound = np.sqrt(6 / sum(shape))
    assert np.abs(W).max() <= bound
    assert np.abs(W).max() > 0.999 * bound
    # the variance of x² for x uniform on ±b is 4b⁴/45
    assert abs(np.mean(W**2) - 2 / sum(shape)) < 5 * np.sqrt(4 * bound**4 / 45 / W.size)
    assert abs(np.mean(W)) < 5 * bound / np.sqrt(3 * W.size)


@dtypes
def test_gate_bias(dtype):
    b = initializers.gate_bias(0.5, 1, -2)(key, (3, 5), dtype)
    np.testing.assert_array_equal(wide(b), np.repeat([[0.5], [1], [-2]], 5, axis=1))


@pytest.mark.parametrize(("dtype", "gates", "T_max"), in_turn(DTYPES, [3, 4], [3, 1000], times=2))
def test_chrono(dtype, gates, T_max):
    """Row 1 is log U(1, T_max - 1); row 0 of an LSTM is its negative; all other rows are 0."""
    b = wide(initializers.chrono(T_max)(key, (gates, 2000), dtype))
    keep = b[1]
    assert keep.min() >= 0
    assert keep.max() <= np.log(T_max - 1) * (1 + rounding(dtype))
    np.testing.assert_array_equal(b[0], -keep if gates == 4 else 0 * keep)
    np.testing.assert_array_equal(b[2:], 0)
    # of the uniform number inside: its mean T_max/2, its deviation (T_max - 2)/√12
    assert abs(np.exp(keep).mean() - T_max / 2) < 5 * (T_max - 2) / np.sqrt(12 * 2000) + T_max * rounding(dtype)
    assert len(np.unique(keep)) > (50 if dtype == jnp.bfloat16 else 1900)


def test_per_gate():
    """One call a gate, each with its own key."""
    W = np.asarray(initializers.per_gate(initializers.orthogonal(), 3)(key, (n, n), jnp.float64)).reshape(3, n, n)
    for gate in W:
        np.testing.assert_allclose(gate @ gate.T, np.eye(n), atol=1e-14)
    assert np.abs(W[0] - W[1]).max() > 0.1
    assert np.abs(W[1] - W[2]).max() > 0.1


def test_what_is_checked_does_not_depend_on_what_was_made_before():
    """True == 1, but a cached object for 1 is no answer to True."""
    initializers.spectral_radius(1)
    with pytest.raises(ValueError, match="rho"):
        initializers.spectral_radius(True)
