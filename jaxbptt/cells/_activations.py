"""φ with a derivative that is a function of its value."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxbptt.types import Array


class Activation(NamedTuple):
    """φ, and φ' as a function of the value φ(z)."""

    apply: Callable[[Array], Array]
    derivative: Callable[[Array], Array]


def _of_tanh(h):
    return 1 - h * h


def _of_relu(h):
    return (h > 0).astype(h.dtype)


def _of_sigmoid(h):
    return h * (1 - h)


ACTIVATIONS = {
    "tanh": Activation(jnp.tanh, _of_tanh),
    "relu": Activation(jax.nn.relu, _of_relu),
    "sigmoid": Activation(jax.nn.sigmoid, _of_sigmoid),
}
