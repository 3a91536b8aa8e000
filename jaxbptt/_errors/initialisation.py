"""Keys, dtypes and sizes of initial parameters."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxbptt._errors import words
from jaxbptt._errors.arguments import called_with, count


def key(value):
    """A JAX key, new style (typed) or old (two uint32)."""
    typed = hasattr(value, "dtype") and jnp.issubdtype(value.dtype, jax.dtypes.prng_key)
    raw = hasattr(value, "dtype") and value.dtype == jnp.uint32 and np.ndim(value) == 1
    if not ((typed and np.ndim(value) == 0) or raw):
        came = words.shape(value) if typed else f"{type(value).__name__} ({value!r:.40})"
        raise TypeError(f"`key` must be one random key: got {came}; make one with `jax.random.key(seed)`")


def floating_dtype(dtype):
    try:
        found = None if dtype is None else jnp.dtype(dtype)  # NumPy takes None for float64
    except TypeError:
        found = None
    if found is None or not jnp.issubdtype(found, jnp.floating):
        came = repr(dtype) if found is None else found
        raise TypeError(f"`dtype` must be a floating-point dtype: got {came}; use jnp.float32, for one")


def init_arguments(key_value, dtype, **sizes):
    key(key_value)
    floating_dtype(dtype)
    for name, value in sizes.items():
        count(name, value)


def initializers(**functions):
    """Functions of ``(key, shape, dtype)``; returned as such that name themselves when they make something else."""
    for name, value in functions.items():
        if hasattr(value, "is_factory"):
            raise TypeError(
                f"`{name}` must be an initialiser: got the factory {value.__name__}; call it, as in "
                "`initializers.orthogonal()`"
            )
        called_with(name, value, "key", "shape", "dtype")
    return [_checked(name, function) for name, function in functions.items()]


def _checked(name, function):
    def init(key, shape, dtype):
        made = function(key, shape, dtype)
        if not hasattr(made, "shape") or made.shape != tuple(shape) or not words.is_float(made):
            came = f"{made.dtype}{list(made.shape)}" if hasattr(made, "shape") else f"a {type(made).__name__}"
            raise TypeError(
                f"`{name}` must return an array {jnp.dtype(dtype)}{list(shape)} for (key, shape, dtype): got {came}"
                + ("; one that is a factory has to be called first, as `he_normal()` of JAX" if callable(made) else "")
            )
        return made

    return init
