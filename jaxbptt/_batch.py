"""Batch axes: found from a state, gone through member by member, and cleaned where a mask says nothing can matter."""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxbptt import _validate
from jaxbptt._cotangents import has_derivative, without_nonfinite


def initial_state(model, theta, xs, h_0=None):
    """h_0, or the model's initial state for the batch of `xs`."""
    _validate.theta(theta)
    return model.initial_state(theta, _validate.batch_shape_of(model.cell, theta.h, xs)) if h_0 is None else h_0


def beginning(model, theta, xs, h_0):
    """h_0 as a function of θ_h: the state given, or the model's initial state, which may be learned."""
    batch = None if h_0 is not None else _validate.batch_shape_of(model.cell, theta.h, xs)
    return lambda theta_h: h_0 if h_0 is not None else model.cell.initial_state(theta_h, batch)


def batch_shape(cell, theta_h, h_0):
    """The batch axes of a state: those that the cell's state for no batch doesn't have.

    A leaf may lack them (a counter, a key that all members share). A cell without `initial_state` is taken to have one
    feature axis: ``h [*batch, n]``.
    """
    leaves = jax.tree.leaves(h_0)
    ranks = _ranks(cell, theta_h) or [1] * len(leaves)
    shapes = {np.shape(h)[: max(np.ndim(h) - rank, 0)] for h, rank in zip(leaves, ranks, strict=True)}
    return _validate.batch_axes(shapes - {()} or {()}, h_0)


def numbers(shape):
    """The sizes that are known: in a program exported for any batch, that of the batch is a symbol."""
    return tuple(size for size in shape if isinstance(size, int))


def members_shape(cell, theta_h, h_0):
    """The same, but ``()`` where the whole state counts as one member, which is always right: for a cell that doesn't
    say, and where a number of the state is every member's.
    """
    is_known = _ranks(cell, theta_h) and not _shared(cell, theta_h, h_0)
    return batch_shape(cell, theta_h, h_0) if is_known else ()


def separate(cell, theta_h, h_0):
    """`batch_shape`, for what goes through a state member by member.

    Raises:
        ValueError: for a number that all members share: it has no cotangent of one of them.
    """
    _validate.nothing_shared(_shared(cell, theta_h, h_0), h_0)
    return batch_shape(cell, theta_h, h_0)


def _shared(cell, theta_h, h_0):
    """Whether a leaf with a derivative lacks the batch axes that others have."""
    leaves = jax.tree.leaves(h_0)
    ranks = _ranks(cell, theta_h) or [1] * len(leaves)
    has_axes = [np.ndim(h) > rank for h, rank in zip(leaves, ranks, strict=True)]
    return any(has_axes) and any(has_derivative(h) and not has for h, has in zip(leaves, has_axes, strict=True))


def _ranks(cell, theta_h):
    """The number of axes of each leaf of a state for no batch; nothing where the cell has no `initial_state`."""
    return [leaf.ndim for leaf in jax.tree.leaves(_validate.state_without_batch(cell, theta_h))]


def over_members(function, batch, *trees):
    """`function` for each member of the batch.

    A leaf without the batch axes is shared by all. One that begins with their sizes by chance is cut like the others:
    nothing in its shape tells.
    """
    axes = [jax.tree.map(lambda leaf: 0 if np.shape(leaf)[: len(batch)] == batch else None, tree) for tree in trees]
    for _ in batch:
        function = jax.vmap(function, in_axes=axes)
    return function(*trees)


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
