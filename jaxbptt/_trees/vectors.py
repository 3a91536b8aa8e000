"""Any tree of numbers as one real vector: what a Jacobian matrix has rows and columns for.

A complex leaf counts as its real and imaginary parts; leaves without a derivative are left out and kept aside.
"""

import jax
import jax.numpy as jnp
import numpy as np

from jaxbptt._algebra import widest
from jaxbptt._trees.cotangents import from_jax, has_derivative


def flatten(tree):
    """The vector of `tree`, and the function that puts another vector in its place.

    Returns:
        ``vector [N]``, real; ``unflatten(vector) -> tree``, with the other leaves as they were.
    """
    leaves, treedef = jax.tree.flatten(tree)
    leaves = [jnp.asarray(leaf) if has_derivative(leaf) else leaf for leaf in leaves]
    numbers = [leaf for leaf in leaves if has_derivative(leaf)]

    vector = _concatenate(numbers)

    def unflatten(vector):
        start, filled = 0, []
        for leaf in leaves:
            if not has_derivative(leaf):
                filled.append(leaf)
                continue
            size, complex_leaf = np.size(leaf), jnp.issubdtype(leaf.dtype, jnp.complexfloating)
            value = vector[start : start + size].reshape(np.shape(leaf))
            start += size
            if complex_leaf:
                value = jax.lax.complex(value, vector[start : start + size].reshape(np.shape(leaf)))
                start += size
            filled.append(value.astype(leaf.dtype))
        return treedef.unflatten(filled)

    return vector, unflatten


def gradient(vector, unflatten):
    """A real gradient as the tree that ``jax.grad`` would give: for z = x + iy, ∂F/∂x - i ∂F/∂y."""
    return jax.tree.map(lambda leaf: jnp.conj(leaf) if has_derivative(leaf) else None, unflatten(vector))


def gradient_vector(bar):
    """The inverse of `gradient`: ∂F/∂x and ∂F/∂y, leaf after leaf, from a cotangent."""
    return _concatenate([jnp.conj(leaf) for leaf in jax.tree.leaves(from_jax(bar))])


def _concatenate(leaves):
    pieces = []
    for leaf in leaves:
        is_complex = jnp.issubdtype(leaf.dtype, jnp.complexfloating)
        pieces += [jnp.real(leaf), jnp.imag(leaf)] if is_complex else [leaf]
    dtype = widest(piece.dtype for piece in pieces)
    return jnp.concatenate([jnp.zeros(0, dtype), *(jnp.ravel(piece).astype(dtype) for piece in pieces)])
