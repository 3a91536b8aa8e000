"""bfloat16 operands: our own products get bfloat16 weights; for a user's products, JAX is asked to round."""

import functools

import jax
import jax.numpy as jnp

from jaxbptt._time.loop import on_cpu


def in_bfloat16(theta):
    """The weights in bfloat16. A bias, with one axis, is no operand of a product."""
    return jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16) if jnp.ndim(leaf) > 1 else leaf, theta)


def with_bfloat16_weights(function):
    """``function(theta, …)``, made of `_algebra`'s products, with bfloat16 operands in all of them."""

    @functools.wraps(function)
    def wrapped(theta, *arguments):
        return function(in_bfloat16(theta), *arguments)

    return wrapped


def with_bfloat16_products(function):
    """`function`, traced so that JAX's products have bfloat16 operands and float32 sums. On a CPU: unchanged.

    A CPU asked to do so rounds float64 but not float32, and jaxlib 0.10 can't multiply a vector so.
    """

    @functools.wraps(function)
    def wrapped(*arguments):
        if on_cpu():
            return function(*arguments)
        with jax.default_matmul_precision("BF16_BF16_F32"):
            return function(*arguments)

    return wrapped
