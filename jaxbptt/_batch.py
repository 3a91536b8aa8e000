"""Batches cleaned where a mask says nothing can matter."""

import jax
import jax.numpy as jnp
from jax import lax

from jaxbptt._trees.cotangents import has_derivative, without_nonfinite


def finite_after_last(xs, mask):
    """`xs` without the NaN that may pad a sequence after its last step that counts; that step reaches no loss."""
    if mask is None:
        return xs
    matters = lax.cummax(mask.astype(jnp.int8), axis=0, reverse=True).astype(bool)
    return without_nonfinite(xs, matters)


def read_without_nan(h_0, mask):
    """`h_0` without the NaN of a member of which no step counts: what padding has left of it in a stream."""
    if mask is None:
        return h_0
    is_read = jnp.any(mask, axis=0)

    def clean(leaf):
        if not has_derivative(leaf) or jnp.shape(leaf)[: is_read.ndim] != is_read.shape:
            return leaf
        leaf = jnp.asarray(leaf)
        spread = jnp.reshape(is_read, is_read.shape + (1,) * (leaf.ndim - is_read.ndim))
        return jnp.where(spread | ~jnp.isnan(leaf), leaf, jnp.zeros_like(leaf))

    return jax.tree.map(clean, h_0)


def for_the_next_chunk(recursion, reached, given, cleaned):
    """What goes on to the next chunk: `reached`, or ``recursion(*given)`` where `cleaned` is something else.

    What no step of a chunk reads may be read in the next: a NaN in it must not have become a number by then.
    """
    pairs = [pair for pair in zip(*map(jax.tree.leaves, (given, cleaned)), strict=True) if pair[0] is not pair[1]]
    if not pairs:
        return reached
    replaced = jnp.stack([jnp.any((a != b) & ~(jnp.isnan(a) & jnp.isnan(b))) for a, b in pairs]).any()
    return lax.cond(replaced, lambda: recursion(*given), lambda: reached)
