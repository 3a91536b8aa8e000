"""How messages say what came."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxbptt._trees.cotangents import dtype_of


def shape(value):
    """An array's shape, or the word for what came instead."""
    return tuple(np.shape(value)) if hasattr(value, "shape") else f"a {type(value).__name__}"


def other(name, wanted, value, remedy=""):
    """The error of an argument that is something else, said with its value."""
    return TypeError(f"`{name}` must be {wanted}: got {type(value).__name__} ({value!r:.80}){remedy}")


def other_type(name, wanted, value, remedy=""):
    """The same for what is too long to show."""
    return TypeError(f"`{name}` must be {wanted}: got {type(value).__name__}{remedy}")


def is_float(leaf):
    return jnp.issubdtype(dtype_of(leaf), jnp.floating)


def describe(tree):
    """A tree with ``dtype[shape]`` at its leaves."""
    return jax.tree.map(lambda leaf: f"{dtype_of(leaf)}{list(np.shape(leaf))}", tree)


# What a function raises that is handed what it does not take.
OF_ARGUMENTS = (TypeError, ValueError, IndexError, KeyError, AttributeError)


def kind(error):
    """The one of two that says whether a type or a value is wrong."""
    return ValueError if isinstance(error, (ValueError, IndexError)) else TypeError
