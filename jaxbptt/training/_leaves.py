"""A tree as named arrays on the host, and back: what a checkpoint holds, with no class of ours or the user's in it."""

import jax
import jax.numpy as jnp
import numpy as np


def named(tree) -> dict:
    """The leaves by their paths, as they stand in the tree."""
    return {jax.tree_util.keystr(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}


def is_key(leaf) -> bool:
    """Whether it is a typed random key, which is data and the name of an algorithm."""
    return hasattr(leaf, "dtype") and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def form(leaf) -> dict:
    """Shape and dtype; of a key, those of its data and the algorithm."""
    if is_key(leaf):
        return {**form(jax.random.key_data(leaf)), "key": str(jax.random.key_impl(leaf))}
    array = leaf if hasattr(leaf, "dtype") else np.asarray(leaf)  # what lies on a device stays there
    return {"shape": list(array.shape), "dtype": str(array.dtype)}


def on_host(leaf) -> np.ndarray:
    """A copy as a NumPy array."""
    return np.array(jax.random.key_data(leaf) if is_key(leaf) else leaf)


def like(leaf, array):
    """`array` as what `leaf` is: a JAX array where that one lies, a key, a NumPy array or a number."""
    if is_key(leaf):
        return _placed(leaf, jax.random.wrap_key_data(array, impl=jax.random.key_impl(leaf)))
    if isinstance(leaf, jax.Array):
        return _placed(leaf, array)
    if isinstance(leaf, np.ndarray):
        return array
    return array[()] if isinstance(leaf, np.generic) else type(leaf)(array.item())


def _placed(leaf, array):
    """On the devices that `leaf` was put on. One that nobody put anywhere stays free to go where a program needs it."""
    return jax.device_put(array, leaf.sharding) if leaf.committed else jax.device_put(array)
