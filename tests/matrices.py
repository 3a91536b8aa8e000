"""b_t and c_t of a step in NumPy, by complex steps."""

import jax
import numpy as np


def flat(tree):
    return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(tree)])


def jacobian(f, tree):
    """By complex steps, a column for each number of `tree`."""
    leaves, structure = jax.tree.flatten(jax.tree.map(np.asarray, tree))
    columns = []
    for k, leaf in enumerate(leaves):
        for index in np.ndindex(leaf.shape):
            moved = [other.astype(complex) for other in leaves]
            moved[k][index] += 1e-30j
            columns.append(flat(f(structure.unflatten(moved))).imag / 1e-30)
    return np.stack(columns, axis=-1)
