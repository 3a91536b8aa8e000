"""Random trees to test rules with: nothing zero, nothing symmetric."""

import functools

import jax
import jax.numpy as jnp

from jaxbptt._trees.cotangents import dtype_of, has_derivative


def like(tree, key, scale=1.0):
    """Normal numbers in the place of every leaf with a derivative; ``None`` in the place of the others."""
    leaves, treedef = jax.tree.flatten(tree)
    keys = jax.random.split(key, max(len(leaves), 1))
    return treedef.unflatten(
        [scale * jax.random.normal(k, jnp.shape(leaf), dtype_of(leaf)) if has_derivative(leaf) else None
         for k, leaf in zip(keys, leaves, strict=False)]
    )  # fmt: skip


def perturbed(tree, key, scale=0.3):
    """`tree` moved off the zeros of its initialisation, where a missing bias or gate can hide."""
    return moved(tree, like(tree, key, scale))


def moved(tree, by, times=1):
    """``tree + times · by``, where `by` has ``None`` in the place of leaves that stay."""
    leaves, treedef = jax.tree.flatten(tree)
    pairs = zip(leaves, treedef.flatten_up_to(by), strict=True)
    return treedef.unflatten([leaf if move is None else jnp.asarray(leaf) + times * move for leaf, move in pairs])


def inner(bar, tree):
    """⟨bar, tree⟩ = Σ bar · leaf over the leaves that have a cotangent: what ``jax.vjp`` pulls back."""
    leaves, treedef = jax.tree.flatten(tree)
    pairs = zip(treedef.flatten_up_to(bar), leaves, strict=True)
    terms = [jnp.real(jnp.sum(leaf_bar * leaf)) for leaf_bar, leaf in pairs if leaf_bar is not None]
    return functools.reduce(jnp.add, terms) if terms else jnp.zeros(())
