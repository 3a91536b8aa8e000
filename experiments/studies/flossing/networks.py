"""The network of the `flossing` study, as Engelken (2023) has it, and what is measured of it.

h_t = W_h tanh(h_{t-1}) + W_x x_t + b,   ŷ_t = W_o h_t + b_o,   p(y_t = 1) = σ(ŷ_t)
"""

import functools
import math

import jax
import jax.numpy as jnp
import optax

import jaxbptt as jb


def step(theta_h: jb.cells.ElmanParams, x_t, h_tm1):
    """f: the state is the value before tanh."""
    return jnp.matvec(theta_h.W_h, jnp.tanh(h_tm1)) + jnp.matvec(theta_h.W_x, x_t) + theta_h.b


def _init(key, input_size, hidden_size, dtype=jnp.float32):
    key_x, key_h, key_b = jax.random.split(key, 3)
    return jb.cells.ElmanParams(
        W_x=jax.random.normal(key_x, (hidden_size, input_size), dtype),
        W_h=jax.random.normal(key_h, (hidden_size, hidden_size), dtype) / math.sqrt(hidden_size),
        b=0.1 * jax.random.uniform(key_b, (hidden_size,), dtype),
    )


def _initial_state(theta_h, batch_shape=()):
    return jnp.zeros((*batch_shape, len(theta_h.b)), theta_h.b.dtype)


def loss(y_hat_t, y_t):
    """-log p(y_t), of one bit."""
    return optax.sigmoid_binary_cross_entropy(y_hat_t[..., 0], y_t)


CELL = jb.cells.from_step(step, init=_init, initial_state=_initial_state)
MODEL = jb.rnn(CELL, jb.readouts.linear(W_o_init=jax.nn.initializers.normal(1.0)))


@jax.jit
def accuracies(theta: jb.Theta, xs, ys, mask):
    """The share of right bits of each seed, ``[S]``."""

    def of_one(theta):
        right = (MODEL.apply(theta, xs)[..., 0] > 0) == (ys > 0.5)
        return jnp.sum(right & mask) / jnp.sum(mask)

    return jax.lax.map(of_one, theta)


@functools.partial(jax.jit, static_argnums=(2,))
def spectra(theta_h: jb.cells.ElmanParams, xs, transient: int):
    """All exponents of each seed, ``[S, N]``, along ``xs [T, S, 1, 1]``."""

    def of_one(theta_h, xs):
        found = jb.diagnostics.lyapunov_spectrum(CELL, theta_h, xs, _initial_state(theta_h), transient=transient)
        return found.exponents

    return jax.vmap(of_one, in_axes=(0, 1))(theta_h, xs[:, :, 0])
