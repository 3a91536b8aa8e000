"""The networks and the objective of the `temporal_order` study.

There are three that Pascanu, Mikolov and Bengio (2013) start from; all biases are 0:

    sigmoid      σ, all weights N(0, 0.01²): γ σ_1(W_h) is far below 1, so gradients vanish for certain
    basic_tanh   tanh, all weights N(0, 0.1²): spectral radius about 0.1 √n
    smart_tanh   tanh, weights N(0, 0.01²), W_h with 15 numbers a row and scaled to the spectral radius 0.95
"""

import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import jaxbptt as jb
from experiments.studies.temporal_order.task import ORDERS, SYMBOLS

ENTRIES, RADIUS = 15, 0.95
LOSS = jb.losses.softmax_cross_entropy


def normal(scale: float) -> jb.initializers.Initializer:
    """Independent numbers N(0, scale²)."""
    return jax.nn.initializers.normal(scale)


def sparse(entries: int, radius: float) -> jb.initializers.Initializer:
    """A Gaussian matrix with so many numbers a row that aren't 0, scaled to a spectral radius.

    Args:
        entries: a row; all, where there are no more columns.
        radius: the largest |eigenvalue|.

    >>> W_h = sparse(3, 0.95)(jax.random.key(0), (8, 8))
    >>> (W_h != 0).sum(axis=1).tolist()
    [3, 3, 3, 3, 3, 3, 3, 3]
    """

    def largest(W):
        return np.asarray(np.abs(np.linalg.eigvals(W)).max(axis=-1), W.dtype)

    def init(key, shape, dtype=jnp.float32):
        key_W, key_kept = jax.random.split(key)
        order = jnp.argsort(jax.random.uniform(key_kept, shape), axis=1)
        W = jnp.where(order < entries, jax.random.normal(key_W, shape, dtype), jnp.zeros(shape, dtype))
        found = jax.pure_callback(largest, jax.ShapeDtypeStruct((), dtype), W, vmap_method="expand_dims")
        return jnp.asarray(radius, dtype) / found * W

    return init


def _model(activation, scale, W_h_init=None):
    cell = jb.cells.elman(activation, W_x_init=normal(scale), W_h_init=W_h_init or normal(scale))
    return jb.rnn(cell, jb.readouts.linear(W_o_init=normal(scale)))


MODELS = {
    "sigmoid": _model("sigmoid", 0.01),
    "basic_tanh": _model("tanh", 0.1),
    "smart_tanh": _model("tanh", 0.01, sparse(ENTRIES, RADIUS)),
}


@functools.cache
def objective(model: jb.Model, alpha: float) -> Callable:
    """F + α/L Ω of symbols ``[L, B]``, with the arguments of ``jaxbptt.objective``'s F."""
    F = jb.objective(model, LOSS)

    @functools.wraps(F)  # and a mean over the batch, like F: so it may be split in the same way
    def regularised(theta, symbols, ys, h_0=None, *, mask=None, lengths=None, key=None):
        xs: Any = jax.nn.one_hot(symbols, SYMBOLS)
        steps: Any = {"mask": mask, "lengths": lengths}
        value: Any = F(theta, xs, ys, h_0, **steps, key=key)
        if alpha:
            value += alpha / len(symbols) * jb.diagnostics.omega(model, LOSS, theta, xs, ys, h_0, **steps)
        return value

    return regularised


def guarded(single: jb.GradientEstimator) -> jb.GradientEstimator:
    """The same, but a gradient that has left float32's range is 0: the others of its batch of seeds go on.

    Unclipped networks come there. Such a network is past learning, and stays where it is.
    """

    def update(*arguments, **options):
        estimate, state = single.update(*arguments, **options)
        finite = jnp.isfinite(estimate.loss) & jnp.isfinite(optax.tree.norm(estimate.grads))
        grads = jax.tree.map(lambda bar: jnp.where(finite, bar, jnp.zeros_like(bar)), estimate.grads)
        chance = math.log(ORDERS)
        return estimate._replace(loss=jnp.nan_to_num(estimate.loss, nan=chance, posinf=chance), grads=grads), state

    return single._replace(update=update)
