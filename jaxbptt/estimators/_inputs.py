"""One input x_t of one member, by its shapes: for estimators that lay out memory for inputs before they see any."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple, ParamSpec, TypeVar

import jax
import numpy as np

from jaxbptt import _axes
from jaxbptt._errors import words
from jaxbptt._trees.cotangents import dtype_of

P = ParamSpec("P")
R = TypeVar("R")


class Shapes(NamedTuple):
    """A tree of shapes that can be hashed, as cached factories need."""

    leaves: tuple
    structure: Any


def by_shape(make: Callable[P, R]) -> Callable[P, R]:
    """Stands above ``@factory``: hands `inputs`, a tree of arrays or of their shapes, on as `Shapes`."""

    @functools.wraps(make)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        if kwargs.get("inputs") is not None:
            kwargs["inputs"] = _shapes(kwargs["inputs"])
        return make(*args, **kwargs)

    return call


def example(cell, theta_h, inputs: Shapes | None):
    """The shapes of one x_t of one member: those given, or ``[d]`` of the first W_x where f reads it; else ``None``."""
    h_t = _axes.state_without_batch(cell, theta_h)
    if inputs is not None and h_t is None:
        return inputs.structure.unflatten(inputs.leaves)
    if inputs is not None:
        x_t = inputs.structure.unflatten(inputs.leaves)
        try:
            jax.eval_shape(cell.apply, theta_h, x_t, h_t)
        except words.OF_ARGUMENTS as error:
            raise words.kind(error)(
                f"`inputs` must be one x_t that f reads, of one member: got {words.describe(x_t)}; {error}"
            ) from error
        return x_t
    named = jax.tree.leaves_with_path(theta_h)
    W_x = next((leaf for path, leaf in named if path and jax.tree_util.keystr(path[-1:], simple=True) == "W_x"), None)
    if W_x is None or h_t is None or np.ndim(W_x) != 2:
        return None
    x_t = jax.ShapeDtypeStruct(np.shape(W_x)[-1:], dtype_of(W_x))
    try:
        jax.eval_shape(cell.apply, theta_h, x_t, h_t)
    except words.OF_ARGUMENTS:
        return None
    return x_t


def _shapes(inputs):
    leaves, structure = jax.tree.flatten(inputs)
    if not leaves or not all(hasattr(leaf, "shape") and hasattr(leaf, "dtype") for leaf in leaves):
        raise words.other("inputs", "one input x_t of one member, arrays or their shapes and dtypes", inputs)
    return Shapes(tuple(jax.ShapeDtypeStruct(leaf.shape, dtype_of(leaf)) for leaf in leaves), structure)
