"""A batch over devices."""

from collections.abc import Iterable

import jax
import jax.numpy as jnp
import numpy as np

from jaxbptt._validate import _words


def objective(value):
    if not callable(value) or not hasattr(value, "reduction"):
        raise TypeError(
            f"`F` must be an objective, whose reduction is known: got {type(value).__name__} ({value!r:.80}); "
            "make one with `jb.objective(model, loss)`"
        )


def value_of_objective(value):
    """One number. A transformation of F has the attributes of F, and may return something else."""
    if not hasattr(value, "dtype") or np.ndim(value) or not jnp.issubdtype(value.dtype, jnp.floating):
        raise TypeError(
            f"`F` must return one floating-point number, as an array: got {_words.describe(value)}; hand "
            "`data_parallel` the objective itself, and transform what it returns: `jax.vmap(jb.data_parallel(F), …)`, "
            "`jax.value_and_grad(jb.data_parallel(F))`"
        )
    return value


def devices(value):
    """The devices as a tuple."""
    several = tuple(value) if isinstance(value, Iterable) else ()
    if not several or not all(hasattr(device, "platform") for device in several):
        raise TypeError(f"`devices` must be devices: got {value!r:.80}; take some of `jax.devices()`")
    if len(set(several)) < len(several):
        raise ValueError(f"`devices` must be distinct: got one twice, {value!r:.80}; take some of `jax.devices()`")
    return several


def no_other_mesh(context, own):
    """The devices are not divided already."""
    if not context.empty and context != own:
        raise ValueError(
            f"`data_parallel` makes a mesh of its devices: got a call where another one is set, {context.axis_names}; "
            "call it outside of it, or use the objective F itself there, in `jax.shard_map` or with "
            "`jax.sharding.auto_axes(jax.grad(F), out_sharding=…)`"
        )


def divisible_batch(number, **arguments):
    """The first batch axis of every leaf is one and the same multiple of the number of devices."""
    first = None
    for name, (tree, axis) in arguments.items():
        for path, leaf in jax.tree.leaves_with_path(tree):
            label = f"{name}{jax.tree_util.keystr(path)}"
            if np.ndim(leaf) <= axis:
                raise ValueError(f"`{label}` must have a batch axis to split, axis {axis}: got shape {np.shape(leaf)}")
            if np.shape(leaf)[axis] % number:
                missing = -np.shape(leaf)[axis] % number
                raise ValueError(
                    f"the batch of `{label}` must be a multiple of the {number} devices: got "
                    f"{np.shape(leaf)[axis]} along axis {axis}, which is taken for the batch: for what has no batch "
                    f"use F itself, else pad it by {missing} and give a `mask`, False there"
                )
            first = first or (label, np.shape(leaf)[axis])
            if np.shape(leaf)[axis] != first[1]:
                raise ValueError(
                    f"the batch of `{label}` must be that of `{first[0]}`, {first[1]}: got {np.shape(leaf)[axis]} "
                    f"along axis {axis}; give what all members share a batch axis (`jnp.broadcast_to`)"
                )
