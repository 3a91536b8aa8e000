"""Cotangents of trees with integers, keys and complex numbers in them, and how they vary over a mesh.

Two conventions meet here. JAX gives a leaf without a derivative (an integer, a key) a ``float0`` array. No scan can
carry one. Inside the library such a leaf's cotangent is ``None``: an empty subtree. Trees of cotangents go through
``lax.scan`` and ``jax.tree.map`` as they are.

Inside ``jax.shard_map`` a scan wants its carry to vary over the same axes of the mesh all along. A shard's inputs vary
over an axis. A θ that all shards share does not, and zeros made here do not. JAX tells them apart by type
(``check_vma``). The arguments of a recursion are therefore made to vary alike where they enter (`alike`). The transpose
of that is the sum over the axes. Zeros made inside vary like their sum will (`zero`). Elsewhere both do nothing.

JAX documents no name for this part of ``jax.typeof``. It is read here only; without it JAX raises its error.
"""

import functools
import operator
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxbptt._algebra import wide

_NOTHING = np.zeros((), jax.dtypes.float0)


def has_derivative(leaf):
    """Whether a leaf is real or complex floating point."""
    return jnp.issubdtype(jnp.result_type(leaf), jnp.inexact)


def dtype_of(leaf):
    """The dtype a leaf has as a JAX array (NumPy's float64 is float32 where x64 is off; keys keep theirs)."""
    return leaf.dtype if hasattr(leaf, "dtype") and not isinstance(leaf, np.ndarray) else jnp.result_type(leaf)


def to_jax(bar, primal):
    """Our cotangent of `primal` as ``jax.vjp`` wants it: ``None`` at an integer leaf becomes ``float0``."""
    leaves, treedef = jax.tree.flatten(primal)
    bars = treedef.flatten_up_to(bar)
    return treedef.unflatten(
        [lax.broadcast(_NOTHING, np.shape(leaf)) if leaf_bar is None else leaf_bar  # a size may be a symbol
         for leaf, leaf_bar in zip(leaves, bars, strict=True)]
    )  # fmt: skip


def from_jax(bar):
    """A cotangent from JAX as ours: ``float0`` leaves become ``None``."""
    leaves, treedef = jax.tree.flatten(bar)
    return treedef.unflatten([None if dtype_of(leaf) == jax.dtypes.float0 else leaf for leaf in leaves])


def zeros(primal, *, to_sum=False):
    """The zero cotangent of `primal`; with `to_sum`, in the dtype for sums over time."""
    leaves, treedef = jax.tree.flatten(primal)
    dtypes = [wide(dtype_of(leaf)) if to_sum else dtype_of(leaf) for leaf in leaves]
    made = [jnp.zeros(jnp.shape(leaf), dtype) if has_derivative(leaf) else None
            for leaf, dtype in zip(leaves, dtypes, strict=True)]  # fmt: skip
    axes = [_axes(leaf) for leaf in leaves]
    return treedef.unflatten(
        [leaf if leaf is None or not along else _over(along, leaf) for along, leaf in zip(axes, made, strict=True)]
    )


def differentiable(primal):
    """The shapes of `primal`'s cotangent: ``None`` at leaves without a derivative."""
    return jax.tree.map(lambda leaf: leaf if has_derivative(leaf) else None, primal)


add: Callable = functools.partial(jax.tree.map, jnp.add)
"""``a + b`` for two cotangents of the same tree."""


def accumulate(total, part):
    """``total + part``, in the dtype of the total."""
    leaves, treedef = jax.tree.flatten(total)
    parts = treedef.flatten_up_to(part)
    return treedef.unflatten([leaf + more.astype(leaf.dtype) for leaf, more in zip(leaves, parts, strict=True)])


def narrow(bar, primal):
    """A cotangent in the dtypes of `primal`."""
    leaves, treedef = jax.tree.flatten(primal)
    bars = treedef.flatten_up_to(bar)
    return treedef.unflatten(
        [None if bar is None else bar.astype(dtype_of(leaf)) for bar, leaf in zip(bars, leaves, strict=True)]
    )


def where(condition, a, b):
    """``a`` where `condition` ([*batch]) holds, else ``b``, leaf by leaf. It selects: a NaN not chosen is gone."""

    def select(leaf_a, leaf_b):
        spread = jnp.reshape(condition, condition.shape + (1,) * (jnp.ndim(leaf_a) - condition.ndim))
        return jnp.where(spread, leaf_a, leaf_b)

    return jax.tree.map(select, a, b)


def unpacked(primals):
    """The arguments of a rule with symbolic zeros: the values, and whether each argument is differentiated."""
    values = jax.tree.map(operator.attrgetter("value"), primals)
    return values, tuple(any(leaf.perturbed for leaf in jax.tree.leaves(primal)) for primal in primals)


def pulled(function, bar, *primals):
    """The cotangents of `primals`, from that of ``function(*primals)``."""
    value, pull = jax.vjp(function, *primals)
    return from_jax(pull(to_jax(bar, value)))


def pullback(function, *primals):
    """``jax.vjp`` of `function`, with our convention for cotangents on both sides.

    Returns:
        The value, and the function from its cotangent to a tuple of the primals' cotangents.
    """
    value, pull = jax.vjp(function, *primals)
    return value, lambda bar: from_jax(pull(to_jax(bar, value)))


def alike(*trees):
    """The trees, every leaf varying over all axes that any leaf varies over."""
    axes = frozenset[str]().union(*map(_axes, jax.tree.leaves(trees)))
    return jax.tree.map(lambda leaf: _over(axes, leaf), trees) if axes else trees


def zero(shape, dtype, like):
    """Zeros that vary as the array `like` does."""
    axes, zeros = _axes(like), jnp.zeros(shape, dtype)
    return _over(axes, zeros) if axes else zeros


def _axes(leaf):
    return getattr(getattr(jax.typeof(leaf), "manual_axis_type", None), "varying", frozenset())


def _over(axes, leaf):
    missing = tuple(sorted(axes - _axes(leaf), key=str))
    return lax.pcast(leaf, missing, to="varying") if missing else leaf
