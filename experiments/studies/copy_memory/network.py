"""A linear network whose W_h is unitary and diagonal, and stays so while it is trained.

    h_t = e^{iφ} ∘ h_{t-1} + W_x x_t,   h_t complex

Every Jacobian is diag(e^{iφ}) whatever φ is, so ∂h_t/∂h_k = diag(e^{i(t-k)φ}) has norm 1 for all t and k: nothing
vanishes and nothing explodes. Any unitary W_h is of this form in the basis of its eigenvectors, which W_x and W_o can
take up. The state holds the real parts and then the imaginary ones, n numbers, so that a product with e^{iφ} is n/2
rotations by φ.

Source: the diagonal factor of Arjovsky, Shah and Bengio (2016), Unitary evolution recurrent neural networks, section 4.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

import jaxbptt as jb


class UnitaryParams(NamedTuple):
    """``phi [n/2]``, ``W_x [n, d]``."""

    phi: jax.Array
    W_x: jax.Array


def step(theta_h: UnitaryParams, x_t: jax.Array, h_tm1: jax.Array) -> jax.Array:
    """One step of f, for any batch axes.

    >>> quarter = UnitaryParams(phi=jnp.array([jnp.pi / 2]), W_x=jnp.zeros((2, 1)))
    >>> bool(jnp.allclose(step(quarter, jnp.zeros(1), jnp.array([1.0, 0.0])), jnp.array([0.0, 1.0]), atol=1e-6))
    True
    """
    re, im = jnp.split(h_tm1, 2, axis=-1)
    cos, sin = (jnp.broadcast_to(part(theta_h.phi), re.shape) for part in (jnp.cos, jnp.sin))
    return jnp.concatenate([cos * re - sin * im, sin * re + cos * im], axis=-1) + x_t @ theta_h.W_x.T


def init(key: jax.Array, input_size: int, hidden_size: int, dtype=jnp.float32) -> UnitaryParams:
    """φ uniform on the circle, W_x Glorot uniform; `hidden_size` n is even."""
    key_phi, key_x = jax.random.split(key)
    phi = jax.random.uniform(key_phi, (hidden_size // 2,), dtype, -jnp.pi, jnp.pi)
    return UnitaryParams(phi, jb.initializers.glorot_uniform(key_x, (hidden_size, input_size), dtype))


def initial_state(theta_h: UnitaryParams, batch_shape: tuple[int, ...] = ()) -> jax.Array:
    """Zeros."""
    return jnp.zeros((*batch_shape, len(theta_h.W_x)), theta_h.W_x.dtype)


UNITARY = jb.cells.from_step(step, init=init, initial_state=initial_state)
