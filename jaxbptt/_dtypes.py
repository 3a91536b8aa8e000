"""Which dtype to sum in. Spelt out, because strict dtype promotion, which users may switch on, has no opinion."""

import jax.numpy as jnp


def wide(dtype):
    """float32 for half precision, whose sums over time stop growing; any other dtype is its own."""
    dtype = jnp.dtype(dtype)
    return jnp.dtype(jnp.float32) if jnp.issubdtype(dtype, jnp.floating) and dtype.itemsize < 4 else dtype


def widest(dtypes, default=jnp.float32):
    """The real floating-point dtype with the most bits."""
    return max((jnp.dtype(dtype) for dtype in dtypes), key=lambda dtype: dtype.itemsize, default=jnp.dtype(default))


def to_sum(L):
    """What a loss returned, in a dtype to sum over time in; truth values as numbers."""
    L = jnp.asarray(L)
    return L.astype(wide(L.dtype) if jnp.issubdtype(L.dtype, jnp.floating) else jnp.float32)
