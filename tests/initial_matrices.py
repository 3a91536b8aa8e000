"""Which matrices and dtypes every initialiser, alone and in a cell, is tried with, and how near is equal."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxbptt import initializers

DTYPES = [jnp.float64, jnp.float32, jnp.bfloat16]
dtypes = pytest.mark.parametrize("dtype", DTYPES, ids=["float64", "float32", "bfloat16"])
key = jax.random.key(0)
d, n = 3, 8

MATRICES: dict[str, Callable] = {
    "glorot_uniform": initializers.glorot_uniform,
    "orthogonal": initializers.orthogonal(0.9),
    "identity": initializers.identity(0.7),
    "spectral_radius": initializers.spectral_radius(0.95),
    "non_normal": initializers.non_normal(0.5, 1.0),
}


def rounding(dtype):
    """What numbers of size 1 can be off by after n operations, in a dtype."""
    return 4 * n * float(jnp.finfo(dtype).eps)


def wide(array):
    return np.asarray(array).astype(np.float64)
