"""Sequences of different lengths: padded, marked, reversed, read at their ends, and batched by length."""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxbptt import _axes, _masks
from jaxbptt._errors import arguments, words
from jaxbptt._trees.cotangents import dtype_of
from jaxbptt.types import Array, PyTree

__all__ = ["bucket", "last", "mask", "pad", "reverse"]


def pad(sequences: Sequence[PyTree], *, multiple: int = 1) -> tuple[PyTree, np.ndarray]:
    """One batch of sequences, with zeros behind the shorter ones.

    Args:
        sequences: each an array ``[T_i, …]``, or a tree of them.
        multiple: T is a multiple of it. So batches of many lengths have few shapes to compile for.

    Returns:
        ``(xs [T, B, …], lengths [B])``, NumPy arrays.

    Raises:
        TypeError, ValueError: for no sequences, leaves of other lengths, trees or shapes that differ.

    >>> xs, lengths = pad([np.ones((3, 2)), np.ones((1, 2))], multiple=4)
    >>> xs.shape, lengths.tolist(), xs[:, 1, 0].tolist()
    ((4, 2, 2), [3, 1], [1.0, 0.0, 0.0, 0.0])
    """
    arguments.count("multiple", multiple)
    if not isinstance(sequences, (list, tuple)) or not sequences:
        raise TypeError(f"`sequences` must be a list of at least one: got {words.describe(sequences)}")
    lengths = np.array([_axes.time_axis(f"sequences[{k}]", one) for k, one in enumerate(sequences)], np.int32)
    for k, one in enumerate(sequences[1:], start=1):
        _like_the_first(k, one, sequences[0])
    T = -(-int(lengths.max()) // multiple) * multiple
    return jax.tree.map(functools.partial(_padded, T), *sequences), lengths


def _like_the_first(k, sequence, first):
    same = jax.tree.structure(sequence) == jax.tree.structure(first)
    steps = [[(np.shape(leaf)[1:], dtype_of(leaf)) for leaf in jax.tree.leaves(tree)] for tree in (sequence, first)]
    if not same or steps[0] != steps[1]:
        raise ValueError(
            f"all sequences must be of one kind but for their lengths: got `sequences[{k}]` = "
            f"{words.describe(sequence)} beside `sequences[0]` = {words.describe(first)}"
        )


def _padded(T, *leaves):
    whole = np.zeros((T, len(leaves), *np.shape(leaves[0])[1:]), np.asarray(leaves[0]).dtype)
    for k, leaf in enumerate(leaves):
        whole[: len(leaf), k] = leaf
    return whole


def mask(lengths: Any, T: int) -> Array:
    """Which steps are real, ``[T, *batch]``: ``t ≤ lengths``.

    >>> mask(jnp.array([3, 1]), 3).tolist()
    [[True, True], [True, False], [True, False]]
    """
    return _masks.real(jnp.zeros((T,)), lengths)


def reverse(xs: PyTree, lengths: Any = None) -> PyTree:
    """Each sequence from its last real step to its first; its padding stays where it is.

    Args:
        xs: leaves ``[T, *batch, …]``.
        lengths: ``[*batch]``; ``None``: all are of T steps.

    >>> reverse(jnp.arange(4), jnp.array(3)).tolist()
    [2, 1, 0, 3]
    """
    if lengths is None:
        return jax.tree.map(functools.partial(jnp.flip, axis=0), xs)
    T, lengths = jax.tree.leaves(xs)[0].shape[0], jnp.asarray(lengths)
    steps = jnp.broadcast_to(jnp.arange(T).reshape(T, *[1] * lengths.ndim), (T, *lengths.shape))
    at = jnp.where(steps < lengths[None], lengths[None] - 1 - steps, steps)
    return jax.tree.map(functools.partial(_taken, at), xs)


def last(hs: PyTree, lengths: Any = None) -> PyTree:
    """Each member's last real step, ``[*batch, …]``; the first step of a sequence of length 0.

    >>> last(jnp.array([[1.0, 5.0], [2.0, 6.0], [3.0, 7.0]]), jnp.array([3, 1])).tolist()
    [3.0, 5.0]
    """
    if lengths is None:
        return jax.tree.map(lambda leaf: leaf[-1], hs)
    at = jnp.maximum(jnp.asarray(lengths) - 1, 0)[None]
    return jax.tree.map(lambda leaf: _taken(at, leaf)[0], hs)


def _taken(at, leaf):
    """``leaf[at]`` of each member."""
    return jnp.take_along_axis(leaf, at.reshape(at.shape + (1,) * (leaf.ndim - at.ndim)), axis=0)


def bucket(lengths: Any, batch_size: int, *, seed: int | None = None) -> list[np.ndarray]:
    """Batches of sequences of similar lengths, as indices: so little of a padded batch is padding.

    Args:
        lengths: of all sequences, ``[N]``.
        batch_size: the most in one batch; the last one may hold fewer.
        seed: shuffles sequences of one length, and the order of the batches; ``None``: the shortest first.

    Returns:
        Index arrays, each in the order of length. Every index is in one of them.

    Raises:
        TypeError, ValueError: for lengths that are no vector of integers, or a batch size below 1.

    >>> [batch.tolist() for batch in bucket([5, 1, 4, 2, 3], 2)]
    [[1, 3], [4, 2], [0]]
    """
    arguments.count("batch_size", batch_size)
    lengths = np.asarray(lengths)
    if lengths.ndim != 1 or not np.issubdtype(lengths.dtype, np.integer):
        raise TypeError(f"`lengths` must be integers [N], one a sequence: got {words.describe(lengths)}")
    order, rng = np.arange(len(lengths)), np.random.default_rng(seed)
    if seed is not None:
        rng.shuffle(order)
    order = order[np.argsort(lengths[order], kind="stable")]
    batches = [order[k : k + batch_size] for k in range(0, len(order), batch_size)]
    if seed is not None:
        rng.shuffle(batches)  # pyright: ignore[reportArgumentType]: a list is shuffled in place
    return batches
