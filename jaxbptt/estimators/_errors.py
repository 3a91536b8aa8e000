"""States that an estimator carries."""

import jax
import numpy as np

from jaxbptt._errors import words


def estimator_state(state, state_type):
    if not isinstance(state, state_type):
        raise TypeError(
            f"`state` must be {state_type.__name__}, as `estimator.init` makes it: got {type(state).__name__}"
        )


def sensitivity(a, shape):
    if np.shape(a) != shape:
        raise ValueError(
            f"`state.a` must have shape [*batch, N, P] = {shape} for this θ_h and state: got {np.shape(a)}; "
            "make the state with `estimator.init` of the same model and batch"
        )
    return a


def kept(came, expected):
    """Steps kept of a stream, like those of its chunks."""
    shapes = words.describe(came), words.describe(expected)
    if jax.tree.structure(came) != jax.tree.structure(expected) or jax.tree.leaves(shapes[0]) != jax.tree.leaves(
        shapes[1]
    ):
        raise ValueError(
            f"`state.kept` must hold steps like those of `xs` and `state.h`, {shapes[1]}: got {shapes[0]}; make the state "
            "with `init` of the same estimator and batch, and give the estimator `inputs=`, one x_t of one member"
        )


def inputs_of_members(xs, batch):
    for path, leaf in jax.tree.leaves_with_path(xs):
        if np.shape(leaf)[1 : 1 + len(batch)] != batch:
            raise ValueError(
                f"`xs{jax.tree_util.keystr(path)}` must have the batch axes, [T, *batch, …] with {batch}, as members of "
                f"different `lengths` keep different steps: got shape {np.shape(leaf)}; use `jnp.broadcast_to`"
            )


def stride(value, window):
    if value > window:
        raise ValueError(
            f"`stride` must be at most `window`, as a sweep over the window takes the losses of its last `stride` steps: "
            f"got stride={value}, window={window}"
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
