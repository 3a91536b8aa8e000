"""A tree with every kind of leaf, and whether what comes back is it."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxbptt.training import checkpoints


class Tree(NamedTuple):
    weights: Any
    more: dict


def tree(seed=0):
    """Every kind of leaf, and names that no file could have."""
    rng = np.random.default_rng(seed)
    more = {
        "a/b": jnp.asarray(rng.normal(size=(2, 3))),
        "..": jnp.asarray(rng.normal(size=4), jnp.bfloat16),
        "": (np.array(seed), np.array([True, False]), None),
        "key": jax.random.key(seed),
        "fast": jax.random.key(seed, impl="rbg"),
        "old": jax.random.PRNGKey(seed),
        "empty": jnp.zeros((0, 3)),
        "numbers": [seed + 7, 0.5 + seed, seed > 0, np.float32(seed), jnp.int8(seed)],
        "nan": np.array([np.nan, -0.0, np.inf, 5e-324]),
    }
    return Tree(jnp.asarray(rng.normal(size=(5, 2)), jnp.float32), more)


def parts(leaf):
    is_key = hasattr(leaf, "dtype") and jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)
    array = np.asarray(jax.random.key_data(leaf) if is_key else leaf)
    kind = type(leaf) if isinstance(leaf, (int, float)) else isinstance(leaf, jax.Array)
    return kind, str(getattr(leaf, "dtype", "")), array.shape, array.tobytes()


def assert_same(found, wanted):
    assert jax.tree.structure(found) == jax.tree.structure(wanted)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
        assert parts(a) == parts(b)


def saver_of(folder, **options):
    return checkpoints.saver(folder, every=10, **{"about": {"name": "two", "rate": 0.1}, **options})


def flipped(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))
