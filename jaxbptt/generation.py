"""A model in closed loop: it reads what it said.

x_{t+1} = ŷ_t, or a sample of it
"""

import functools

import jax
import jax.numpy as jnp
from jax import lax

from jaxbptt import _axes, _keys
from jaxbptt._errors import arguments, initialisation, trees, words
from jaxbptt.layers import network


def generate(model, theta, x_0, h_0=None, *, steps, key=None, sample=None):
    """``y_hats [steps, *batch, m]`` of a model in closed loop: see `jaxbptt.rnn`."""
    trees.theta(theta)
    arguments.count("steps", steps)
    if key is not None:
        initialisation.key(key)
    if sample is not None:
        arguments.called_with("sample", sample, "key_t", "y_hat_t")
    cell = network.one_cell("model.generate", model)
    x_0 = jax.tree.map(jnp.asarray, x_0)
    if h_0 is None:
        h_0 = cell.initial_state(theta.h, _axes.batch_shape_of(cell, theta.h, jax.tree.map(lambda x: x[None], x_0), ()))
    step = functools.partial(_step, model, theta, sample, key)
    (_, x_1), _ = jax.eval_shape(step, (h_0, x_0), jnp.zeros((), int))
    _like_the_input(x_0, x_1, sample)
    return lax.scan(step, (h_0, x_0), jnp.arange(steps))[1]


def _step(model, theta, sample, key, carry, t):
    h_tm1, x_t = carry
    key_t, own_t = (None, None) if key is None else jax.random.split(jax.random.fold_in(key, t))
    h_t = model.cell.apply(theta.h, _keys.of_a_step(model.cell, x_t, own_t), h_tm1)
    y_hat_t = model.readout.apply(theta.o, model.cell.output(h_t))
    return (h_t, y_hat_t if sample is None else sample(key_t, y_hat_t)), y_hat_t


def _like_the_input(x_0, x_1, sample):
    came, wanted = (jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), tree) for tree in (x_1, x_0))
    if came != wanted:
        what = "ŷ_t" if sample is None else "`sample(key_t, y_hat_t)`"
        raise ValueError(
            f"{what} is the next input and must be like `x_0`, {words.describe(x_0)}: got {words.describe(x_1)}; make "
            "an input of ŷ_t by `sample`"
        )
