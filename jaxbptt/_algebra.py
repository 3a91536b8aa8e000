"""The products of every hand-written rule, for any leading axes (time, batch, both or none); the dtype of sums.

A product rounds its operands to the dtype of the weight. It sums in float32 at least, and returns the dtype of the
vector. With bfloat16 weights and float32 vectors this is mixed precision (`jaxbptt.policies`).
"""

import jax.numpy as jnp
from jax import lax


def matvec(W, x):
    """W x for ``W [k, n]`` and ``x [..., n]``: ``[..., k]``, one GEMM over the leading axes."""
    dimensions = (((x.ndim - 1,), (1,)), ((), ()))
    product = lax.dot_general(x.astype(W.dtype), W, dimensions, preferred_element_type=wide(x.dtype))
    return product.astype(x.dtype)


def with_bias(z, b):
    """The sum z + b. The bias is broadcast by name, as rank promotion may be forbidden."""
    return z + jnp.broadcast_to(b, z.shape)


def vecmat(z_bar, W):
    """Wᵀ z_bar, the transpose of `matvec`: ``z_bar [..., k]`` to ``[..., n]``."""
    dimensions = (((z_bar.ndim - 1,), (0,)), ((), ()))
    product = lax.dot_general(z_bar.astype(W.dtype), W, dimensions, preferred_element_type=wide(z_bar.dtype))
    return product.astype(z_bar.dtype)


def outer(z_bar, x, W):
    """Σ z_bar xᵀ over all leading axes, the cotangent of W in `matvec`: ``[k, n]``, one GEMM."""
    lead = tuple(range(x.ndim - 1))
    operands = z_bar.astype(W.dtype), x.astype(W.dtype)
    product = lax.dot_general(*operands, ((lead, lead), ((), ())), preferred_element_type=wide(z_bar.dtype))
    return product.astype(z_bar.dtype)


def total(z_bar):
    """Σ z_bar over all leading axes, the cotangent of a bias: ``[k]``."""
    lead = tuple(range(z_bar.ndim - 1))
    return jnp.sum(z_bar, axis=lead, dtype=wide(z_bar.dtype)).astype(z_bar.dtype)


def wide(dtype):
    """The dtype to sum in: float32 for half precision, whose sums over time stop growing; else the dtype itself."""
    dtype = jnp.dtype(dtype)
    return jnp.dtype(jnp.float32) if jnp.issubdtype(dtype, jnp.floating) and dtype.itemsize < 4 else dtype


def to_sum(L):
    """The result of a loss, in a dtype for sums over time; truth values as numbers."""
    L = jnp.asarray(L)
    return L.astype(wide(L.dtype) if jnp.issubdtype(L.dtype, jnp.floating) else jnp.float32)
