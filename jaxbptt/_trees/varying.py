"""Which axes of a mesh an array varies over, inside ``jax.shard_map``: a scan wants its carry to vary alike all along.

A θ that all shards share, and zeros made here, vary over no axis; a shard's inputs do. JAX tells them apart by type
(``check_vma``): a carry that begins as zeros and goes on as a state is an error, and so is a cotangent of θ that varies
as θ doesn't. So what meets in a recursion is made to vary alike at its door (`alike`; the transpose of that is the sum
over the axes), and what begins as zeros inside it varies like what it becomes (`zeros`). Elsewhere both do nothing.

What the type that ``jax.typeof`` gives says of this has no documented name. It is read here only; without it nothing
is done, and JAX raises its error.
"""

import jax
import jax.numpy as jnp
from jax import lax


def alike(*trees):
    """The trees, each leaf varying over all the axes that one of them varies over."""
    axes = frozenset[str]().union(*map(_axes, jax.tree.leaves(trees)))
    return jax.tree.map(lambda leaf: _over(axes, leaf), trees) if axes else trees


def zeros(shape, dtype, like):
    """Zeros that vary as the array `like` does."""
    return _over(_axes(like), jnp.zeros(shape, dtype))


def _axes(leaf):
    return getattr(getattr(jax.typeof(leaf), "manual_axis_type", None), "varying", frozenset())


def _over(axes, leaf):
    missing = tuple(sorted(axes - _axes(leaf), key=str))
    return lax.pcast(leaf, missing, to="varying") if missing else leaf
