"""States that an estimator carries."""

import jax
import numpy as np

from jaxbptt._errors import arguments, words


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


def positive(**values):
    arguments.numbers(**values)
    for name, value in values.items():
        if value <= 0:
            raise ValueError(f"`{name}` must be above 0: got {value!r}")


def one_product(theta_h, x_t, h_tm1):
    """A cell ``h = f(W_x x + W_h φ(h) + b)``, told by its parameters, its state and its inputs."""
    fields, n = getattr(theta_h, "_fields", ()), np.shape(h_tm1)[-1:] if hasattr(h_tm1, "shape") else ()
    if fields[:2] != ("W_x", "W_h") or fields[2:] not in ((), ("b",)) or np.shape(theta_h.W_h) != (*n, *n) or not n:
        raise NotImplementedError(
            "`kf_rtrl` is for cells of one product, W_x [n, d], W_h [n, n] and b [n] or none, with one state h [n], "
            f"such as `cells.elman` and `cells.linear`: got θ_h of {type(theta_h).__name__} and a state "
            f"{words.describe(h_tm1)}; use `uoro`, which takes any cell"
        )
    if x_t is not None and not hasattr(x_t, "shape"):
        raise NotImplementedError(
            f"`xs` must be one array [T, *batch, d] for `kf_rtrl`: got a {type(x_t).__name__}; give `lengths` for "
            "padding, or use `uoro`, which takes any inputs"
        )
