"""A stack with an online trace for each layer: exact in the top layer only.

    s_t = d ∘ s_{t-1} + W x_t,   d = σ(θ),   tanh between layers          a_t = ∂s_t/∂(θ, W) of the layer alone

Errors go down through the layers at the same step only: ∂F/∂θ ≈ (∂L_T/∂s_T) a_T. What a lower layer did to the layer
above at an earlier step, which that layer remembers, is lost.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

import jaxbptt as jb

UNITS, STEPS = 16, 12
_START = (2.0, 0.5)  # mean and standard deviation of θ


def _step(theta_h, x_t, h_tm1):
    theta, W = theta_h
    return jax.nn.sigmoid(theta) * h_tm1 + W @ x_t


UNIT = jb.cells.from_step(_step)


def loss(layers, xs, y, *, is_online):
    """½‖s_T - y‖² of the top layer. ``is_online``: layers above remember nothing that has a derivative below."""
    for k, theta_h in enumerate(layers):
        if k:
            xs = jnp.tanh(xs)
            if is_online:
                xs = jnp.concatenate([jax.lax.stop_gradient(xs[:-1]), xs[-1:]])
        _, xs = jb.unroll(UNIT, theta_h, xs, jnp.zeros(UNITS, xs.dtype))
    return 0.5 * jnp.sum(jnp.square(xs[-1] - y))


@functools.partial(jax.jit, static_argnums=1)
def _cosines(key, depth):
    keys = jax.random.split(key, 2 * depth + 2)
    mean, deviation = _START
    layers = [
        (mean + deviation * jax.random.normal(theta, (UNITS,)), jax.random.normal(W, (UNITS, UNITS)) / np.sqrt(UNITS))
        for theta, W in zip(keys[:depth], keys[depth:-2], strict=True)
    ]
    xs, y = jax.random.normal(keys[-2], (STEPS, UNITS)), jax.random.normal(keys[-1], (UNITS,))
    exact, online = (jax.grad(functools.partial(loss, is_online=cut))(layers, xs, y) for cut in (False, True))
    return jax.tree.map(_cosine, exact, online)


def _cosine(a, b):
    return jnp.vdot(a, b) / (jnp.linalg.norm(a) * jnp.linalg.norm(b))


def cosines(seed: int, depth: int, seeds: int) -> np.ndarray:
    """Of the online gradient with BPTT's, ``[seeds, depth, 2]``: layers from the bottom, each with d and W.

    The cosine of d's gradient is taken of θ's.
    """
    keys = jax.random.split(jax.random.key(seed), seeds)
    found = jax.vmap(functools.partial(_cosines, depth=depth))(keys)
    return np.moveaxis(np.array(found), 2, 0)
