"""States that an estimator carries."""

import jax
import numpy as np

from jaxbptt._errors import words


def estimator_state(state, state_type):
    if not isinstance(state, state_type):
        raise TypeError(
            f"`state` must be {state_type.__name__}, as `estimator.init` makes it: got {type(state).__name__}"
        )


def taken_by_objective(given, taken):
    """F takes every keyword argument that is given."""
    for name in given:
        if name not in taken:
            raise TypeError(
                f"`{name}` must be None for an F that takes none: got one; leave it out, or let F take it, as "
                f"`F(theta, xs, ys, h_0=None, *, {name}=None)`"
            )


def value_and_aux(returned, nothing):
    """The value and the aux that F returns; `nothing` in place of no aux."""
    value, aux = returned if isinstance(returned, tuple) and len(returned) == 2 else (returned, nothing)
    if not hasattr(value, "dtype") or np.ndim(value) or not words.is_float(value):
        raise TypeError(
            "`F` must return one floating-point number, as an array, or two things, `(number, aux)`: got "
            f"{words.describe(returned)}"
        )
    return value, aux


def same_influence(a, expected):
    """The influence carried is of this model and batch."""
    came, wanted = (jax.tree.map(np.shape, tree) for tree in (a, expected))
    if came != wanted:
        raise ValueError(
            f"`state.a` must have the shapes {wanted} for this θ_h, inputs and batch: got {came}; make the state with "
            "`estimator.init` of the same model and batch"
        )


def no_key():
    raise TypeError(
        "`key` must be a key, as this estimator draws random numbers: got None; pass `key=jax.random.key(…)`"
    )
