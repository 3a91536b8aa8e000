"""Initial values for weights and biases, as functions ``(key, shape, dtype=float32) -> array``.

The same form as `jax.nn.initializers`, so any of those can stand in. Weights have the layout ``[out, in]`` of the
formulas: an initialiser that tells the two apart wants ``in_axis=-1, out_axis=-2``. A gated cell calls the
initialiser of a weight once a gate, so that fans and orthogonality are those of the gate; a bias initialiser
sees ``(gates, n)``, one row a gate. Half precision has no factorisations: they run in float32, rounded after.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxbptt._algebra import wide
from jaxbptt._errors import arguments, initialisation
from jaxbptt._factory import factory

__all__ = [
    "Initializer", "chrono", "gate_bias", "glorot_uniform", "identity", "non_normal", "orthogonal", "per_gate",
    "spectral_radius", "zeros",
]  # fmt: skip

Initializer = Callable[..., Any]


def zeros(key, shape, dtype=jnp.float32):
    """Zeros, of any shape.

    Args:
        key: not used.
        shape: of the result.
        dtype: of the result.

    Returns:
        An array of this shape and dtype.

    >>> zeros(jax.random.key(0), (2,)).tolist()
    [0.0, 0.0]
    """
    return jnp.zeros(shape, dtype)


def glorot_uniform(key, shape, dtype=jnp.float32):
    """Uniform with variance 2/(fan_in + fan_out), so on ±√(6/(n + d)) for ``[n, d]``: Glorot and Bengio (2010), eq. 16.

    Args:
        key: a random key.
        shape: ``(n, d)``.
        dtype: of the result.

    Returns:
        An array of this shape and dtype, by `jax.nn.initializers`.

    Raises:
        ValueError: for a shape that is no matrix's.

    >>> W_x = glorot_uniform(jax.random.key(0), (4, 2))
    >>> bool(abs(W_x).max() <= 1.0)  # √(6/6)
    True
    """
    _matrix_shape("glorot_uniform", shape)
    return jax.nn.initializers.glorot_uniform(in_axis=-1, out_axis=-2)(key, shape, dtype)


@factory
def orthogonal(scale: float = 1.0) -> Initializer:
    """ρQ with Q uniformly random orthogonal: every product of t of them has norm exactly ρᵗ.

    Args:
        scale: ρ.

    Returns:
        An `Initializer`, ``(key, shape, dtype=float32) -> array``; for ``[n, k]`` with orthonormal rows or columns,
        whichever are fewer. One QR.

    Raises:
        TypeError, ValueError: for a scale that is no finite number; from it, for a shape that is no matrix's.

    Source: Saxe, McClelland and Ganguli (2014).

    >>> W_h = orthogonal(0.9)(jax.random.key(0), (4, 4))
    >>> bool(jnp.allclose(W_h @ W_h.T, 0.81 * jnp.eye(4), atol=1e-6))
    True
    """
    arguments.numbers(scale=scale)
    draw = jax.nn.initializers.orthogonal(scale=scale, column_axis=-1)

    def init(key, shape, dtype=jnp.float32):
        _matrix_shape("orthogonal", shape)
        return draw(key, shape, wide(dtype)).astype(dtype)

    return init


@factory
def identity(scale: float = 1.0) -> Initializer:
    """``scale · I``: with relu, the IRNN of Le, Jaitly and Hinton (2015).

    Args:
        scale: of each number of the diagonal.

    Returns:
        An `Initializer`, ``(key, shape, dtype=float32) -> array``.

    Raises:
        TypeError, ValueError: for a scale that is no finite number; from it, for a shape that is not square.

    >>> identity()(jax.random.key(0), (2, 2)).tolist()
    [[1.0, 0.0], [0.0, 1.0]]
    """
    arguments.numbers(scale=scale)

    def init(key, shape, dtype=jnp.float32):
        return jnp.asarray(scale, dtype) * jnp.eye(_square("identity", shape), dtype=dtype)

    return init


@factory
def spectral_radius(rho: float) -> Initializer:
    """A Gaussian matrix rescaled so that its largest |eigenvalue| is exactly ρ; not normal, so its norm is larger.

    ‖W‖₂ scatters for small n and comes near 2ρ for large ones.
    The eigenvalues come from the host (LAPACK through a callback), as not every accelerator has a
    non-symmetric solver. Costs O(n³), once.

    Args:
        rho: ρ, at least 0.

    Returns:
        An `Initializer`, ``(key, shape, dtype=float32) -> array``.

    Raises:
        TypeError, ValueError: for a rho below 0; from it, for a shape that is not square.

    >>> W_h = spectral_radius(0.9)(jax.random.key(0), (8, 8))
    >>> round(float(abs(np.linalg.eigvals(W_h)).max()), 5)
    0.9
    """
    arguments.at_least("rho", rho, 0)
    arguments.numbers(rho=rho)

    def largest(W):
        return np.asarray(np.abs(np.linalg.eigvals(W)).max(axis=-1), W.dtype)

    def init(key, shape, dtype=jnp.float32):
        _square("spectral_radius", shape)
        W = jax.random.normal(key, shape, wide(dtype))
        radius = jax.pure_callback(largest, jax.ShapeDtypeStruct((), W.dtype), W, vmap_method="expand_dims")
        return (jnp.asarray(rho, W.dtype) / radius * W).astype(dtype)

    return init


@factory
def non_normal(rho: float, strength: float) -> Initializer:
    """Q (ρI + strength·S) Qᵀ: every eigenvalue is ρ, yet powers grow at first if ``rho + strength > 1`` (n large).

    S shifts by one place (a delay line of length n) and Q is a random orthogonal basis. The t-th power is
    Σ_k C(t, k) ρ^(t-k) strengthᵏ Sᵏ before the basis: with ρ < 1 it vanishes in the end, after growing to a
    size that depends on n. Powers of a normal matrix with these eigenvalues would be ρᵗ from the start.

    Args:
        rho: the eigenvalue.
        strength: the weight of the shift, 0 for the normal matrix ρI.

    Returns:
        An `Initializer`, ``(key, shape, dtype=float32) -> array``. One QR and two products.

    Raises:
        TypeError, ValueError: for what is no finite number; from it, for a shape that is not square.

    Source: Trefethen and Embree (2005), Spectra and pseudospectra, ch. 7; in recurrent networks, Goldman (2009).

    >>> W_h = non_normal(0.5, 1.0)(jax.random.key(0), (6, 6))
    >>> bool(np.linalg.norm(np.linalg.matrix_power(W_h, 3), 2) > 1)
    True
    """
    arguments.numbers(rho=rho, strength=strength)

    def init(key, shape, dtype=jnp.float32):
        n = _square("non_normal", shape)
        compute = wide(dtype)
        Q = jax.nn.initializers.orthogonal()(key, shape, compute)
        diagonal, shift = (jnp.eye(n, k=k, dtype=compute) for k in (0, 1))
        jordan = jnp.asarray(rho, compute) * diagonal + jnp.asarray(strength, compute) * shift
        return (Q @ jordan @ Q.T).astype(dtype)

    return init


@factory
def gate_bias(*values: float) -> Initializer:
    """A constant for each gate: ``gate_bias(0, 1, 0, 0)`` is an LSTM's forget bias of 1.

    Args:
        *values: one a gate, in the order of the cell's rows.

    Returns:
        An `Initializer`, ``(key, shape, dtype=float32) -> array`` for the shape ``(gates, n)``.

    Raises:
        TypeError, ValueError: for what is no finite number; from it, for another number of gates.

    >>> gate_bias(0, 1, 0, 0)(jax.random.key(0), (4, 2)).tolist()
    [[0.0, 0.0], [1.0, 1.0], [0.0, 0.0], [0.0, 0.0]]
    """
    arguments.numbers(**{f"values[{k}]": value for k, value in enumerate(values)})

    def init(key, shape, dtype=jnp.float32):
        _gate_rows("gate_bias", shape, len(values))
        return jnp.broadcast_to(jnp.asarray(values, dtype)[:, None], shape)

    return init


@factory
def chrono(T_max: int) -> Initializer:
    """Biases that make a gated cell's memories last between 1 and T_max steps.

    The keep gate (row 1 of both cells: f of the LSTM, z of this library's GRU) gets ``log U(1, T_max - 1)``;
    an LSTM's input gate (row 0) gets its negative; all other rows are 0.

    Args:
        T_max: the longest range of dependencies expected, at least 3.

    Returns:
        An `Initializer`, ``(key, shape, dtype=float32) -> array`` for the shape ``(3, n)`` or ``(4, n)``.

    Raises:
        TypeError, ValueError: for a T_max below 3; from it, for another number of gates.

    Source: Tallec and Ollivier (2018), Can recurrent neural networks warp time?, section 2.

    >>> b = chrono(100)(jax.random.key(0), (4, 3))
    >>> bool((b[1] >= 0).all() and (b[1] <= jnp.log(99.0)).all() and (b[0] == -b[1]).all())
    True
    """
    arguments.at_least("T_max", T_max, 3)
    arguments.numbers(T_max=T_max)

    def init(key, shape, dtype=jnp.float32):
        _gate_rows("chrono", shape, 3, 4)
        spread = jax.random.uniform(key, shape[1:], wide(dtype), 1.0, T_max - 1.0)
        keep = jnp.log(spread).astype(dtype)
        rows = jnp.zeros(shape, dtype).at[1].set(keep)
        return rows.at[0].set(-keep) if shape[0] == 4 else rows

    return init


def per_gate(init: Initializer, gates: int) -> Initializer:
    """`init` called once a gate, with a key of its own, and the results stacked: ``[gates · n, k]``.

    Args:
        init: for the weight of one gate, ``(key, (n, k), dtype)``.
        gates: how many.

    Returns:
        An `Initializer` that is asked for the shape of one gate, ``(n, k)``, and makes ``[gates · n, k]``.

    Raises:
        TypeError, ValueError: for what is no initialiser, or gates that are no positive integer.

    >>> per_gate(orthogonal(), 3)(jax.random.key(0), (4, 4)).shape
    (12, 4)
    """
    (init,) = initialisation.initializers(init=init)
    arguments.count("gates", gates)

    def stacked(key, shape, dtype=jnp.float32):
        keys = jax.random.split(key, gates)
        return jnp.concatenate([init(gate_key, shape, dtype) for gate_key in keys])

    return stacked


def _matrix_shape(name, shape):
    if len(shape) != 2:
        raise ValueError(f"initializers.{name} makes a matrix: got shape={tuple(shape)}, expected two axes")


def _square(name, shape):
    if len(shape) != 2 or shape[0] != shape[1]:
        raise ValueError(
            f"initializers.{name} makes a square matrix: got shape={tuple(shape)}; "
            "it is meant for W_h, one gate at a time"
        )
    return shape[0]


def _gate_rows(name, shape, *gates):
    if len(shape) != 2 or shape[0] not in gates:
        raise ValueError(
            f"initializers.{name} makes biases of shape (gates, n) with {' or '.join(map(str, gates))} gates: "
            f"got shape={tuple(shape)}; use it for the bias of a cell with as many gates"
        )
