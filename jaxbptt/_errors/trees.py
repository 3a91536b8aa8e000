"""Trees: θ, those that are like another, those of one dtype."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxbptt import types
from jaxbptt._trees.cotangents import dtype_of


def theta(value):
    if not isinstance(value, types.Theta):
        raise TypeError(f"`theta` must be a Theta(h=…, o=…): got {type(value).__name__}; make one with `model.init`")


def like(name, tree, reference_name, reference):
    """`tree` has the structure, shapes and dtypes of `reference`."""
    if jax.tree.structure(tree) != jax.tree.structure(reference):
        raise TypeError(
            f"`{name}` must have the tree of `{reference_name}`: got {jax.tree.structure(tree)}, "
            f"expected {jax.tree.structure(reference)} (None where there is no derivative)"
        )
    for (path, leaf), wanted in zip(jax.tree.leaves_with_path(tree), jax.tree.leaves(reference), strict=True):
        if np.shape(leaf) != np.shape(wanted) or dtype_of(leaf) != dtype_of(wanted):
            raise ValueError(
                f"`{name}{jax.tree_util.keystr(path)}` must be like `{reference_name}`, "
                f"{dtype_of(wanted)}{list(np.shape(wanted))}: got {dtype_of(leaf)}{list(np.shape(leaf))}"
            )


def same_float_dtype(name, tree, dtype, reference):
    if not jnp.issubdtype(dtype, jnp.floating):
        raise TypeError(
            f"`{reference}` must be floating point: got {dtype}; complex parameters go through `cells.from_step`"
        )
    for path, leaf in jax.tree.leaves_with_path(tree):
        if dtype_of(leaf) != dtype:
            cast = f".astype(jnp.{dtype})"
            converted = f"jax.tree.map(lambda leaf: leaf{cast}, {name})" if path else f"{name}{cast}"
            raise TypeError(
                f"`{name}{jax.tree_util.keystr(path)}` must have the dtype of `{reference}`, {dtype}: got "
                f"{dtype_of(leaf)}; convert one of them, as in `{converted}`"
            )
