"""bfloat16 operands: given to our own products as bfloat16 weights, asked of JAX for the products of a user."""

import functools

import jax
import jax.numpy as jnp

from jaxbptt._time.loop import on_cpu


def in_bfloat16(theta):
    """The weights in bfloat16; a bias, with one axis, is no operand of a product."""
    return jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16) if jnp.ndim(leaf) > 1 else leaf, theta)


def with_bfloat16_weights(function):
    """``function(theta, …)``, made of `_algebra`'s products, with bfloat16 operands in all of them."""

    @functools.wraps(function)
    def wrapped(theta, *arguments):
        return function(in_bfloat16(theta), *arguments)

    return wrapped


def with_bfloat16_products(function):
    """`function` traced with JAX's own products asked for bfloat16 operands and sums in float32; not for a CPU.

    There float32 is not rounded when asked to, float64 is, and jaxlib 0.10 can't multiply a vector so.
    """

    @functools.wraps(function)
    def wrapped(*arguments):
        if on_cpu():
            return function(*arguments)
        with jax.default_matmul_precision("BF16_BF16_F32"):
            return function(*arguments)

    return wrapped
