"""Any tree of numbers as one real vector, for the rows and columns of a Jacobian matrix.

A complex leaf counts as its real and imaginary parts. Leaves without a derivative are left out and kept aside.
"""

import functools
import operator

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxbptt._trees.cotangents import dtype_of, from_jax, has_derivative


def flatten(tree):
    """The vector of `tree`, and the function that puts another vector in its place.

    Returns:
        ``vector [N]``, real; ``unflatten(vector) -> tree``, with the other leaves as they were.
    """
    numbers = [jnp.asarray(leaf) for leaf in jax.tree.leaves(tree) if has_derivative(leaf)]
    return _concatenate(numbers), functools.partial(_unflatten, tree)


def gradient(vector, tree):
    """A real gradient in the form of ``jax.grad`` for `tree`: for z = x + iy, ∂F/∂x - i ∂F/∂y."""
    leaves, structure = jax.tree.flatten(tree)
    parts = [0 if not has_derivative(leaf) else 1 + jnp.iscomplexobj(leaf) for leaf in leaves]
    sizes = [number * np.size(leaf) for number, leaf in zip(parts, leaves, strict=True)]
    pieces = jnp.split(vector, np.cumsum(sizes)[:-1])
    pieces = [piece.reshape(number, *np.shape(leaf)) for piece, number, leaf in zip(pieces, parts, leaves, strict=True)]
    bars = [None if not len(z) else z[0] if len(z) == 1 else lax.complex(z[0], -z[1]) for z in pieces]
    return structure.unflatten(
        [None if bar is None else bar.astype(dtype_of(leaf)) for bar, leaf in zip(bars, leaves, strict=True)]
    )


def gradient_vector(bar):
    """The inverse of `gradient`: ∂F/∂x and ∂F/∂y, leaf after leaf, from a cotangent."""
    return _concatenate([jnp.conj(leaf) for leaf in jax.tree.leaves(from_jax(bar))])


def _unflatten(tree, vector):
    leaves, structure = jax.tree.flatten(tree)
    bars = structure.flatten_up_to(gradient(vector, tree))
    return structure.unflatten([leaf if bar is None else jnp.conj(bar) for leaf, bar in zip(leaves, bars, strict=True)])


def _concatenate(leaves):
    pieces = [part for z in leaves for part in ((jnp.real(z), jnp.imag(z)) if jnp.iscomplexobj(z) else (z,))]
    dtype = max((piece.dtype for piece in pieces), key=operator.attrgetter("itemsize"), default=jnp.dtype(jnp.float32))
    return jnp.concatenate([jnp.zeros(0, dtype), *(jnp.ravel(piece).astype(dtype) for piece in pieces)])
