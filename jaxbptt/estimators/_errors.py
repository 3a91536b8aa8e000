"""States that an estimator carries."""

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from jaxbptt._errors import arguments, words
from jaxbptt.types import GradientEstimator


def estimator_state(state, state_type):
    if not isinstance(state, state_type):
        raise TypeError(
            f"`state` must be {state_type.__name__}, as `estimator.init` makes it: got {type(state).__name__}"
        )


def kept(came, expected):
    """Steps kept of a stream, like those of its chunks."""
    got, wanted = words.describe(came), words.describe(expected)
    if jax.tree.structure(got) != jax.tree.structure(wanted) or jax.tree.leaves(got) != jax.tree.leaves(wanted):
        raise ValueError(
            f"`state.kept` must hold steps like those of `xs` and `state.h`, {wanted}: got {got}; make the state with "
            "`init` of the same estimator and batch, and give the estimator `inputs=`, one x_t of one member"
        )


def inputs_of_members(xs, batch):
    for path, leaf in jax.tree.leaves_with_path(xs):
        if np.shape(leaf)[1 : 1 + len(batch)] != batch:
            raise ValueError(
                f"`xs{jax.tree_util.keystr(path)}` must have the batch axes, [T, *batch, …] with {batch}: got shape "
                f"{np.shape(leaf)}; with `lengths` members keep different steps, so use `jnp.broadcast_to`"
            )


def stride(value, window):
    if value > window:
        raise ValueError(
            "`stride` must be at most `window`, as a sweep over the window takes the losses of its last `stride` steps "
            f"along: got stride={value}, window={window}"
        )


def above(name, value, bound):
    if not value > bound:
        raise ValueError(f"`{name}` must be above {bound}: got {value!r}")


def given_key(key):
    """The key of an estimator that draws."""
    if key is None:
        raise TypeError(
            "`key` must be given, as this estimator draws random numbers: got None; call `update(…, key=key)`, with "
            "a new key for each chunk"
        )
    return key


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


def named_estimators(values):
    for one in values.values() if isinstance(values, Mapping) else (values,):
        if not isinstance(one, GradientEstimator):
            wanted = "a dictionary from names to estimators, such as `estimators.rtrl(model, loss)`"
            raise words.other("estimators", wanted, one)
    if not isinstance(values, Mapping) or not values:
        raise ValueError(f"`estimators` must be a dictionary with at least one entry: got {len(values)}")


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


def weights_of_the_state(name, cell, theta_h, x_t, h_tm1, gated):
    """A cell whose state goes through W_h, and a bias beside that; one state h where it may not be gated."""
    W_h: Any = getattr(theta_h, "W_h", None)
    b: Any = getattr(theta_h, "b_h", getattr(theta_h, "b", None))
    z = jax.eval_shape(cell.output, h_tm1)
    fits = np.ndim(W_h) == 2 and hasattr(z, "shape") and z.shape == W_h.shape[1:] and np.shape(b) == W_h.shape[:1]
    if not fits or not (gated or (W_h.shape[0] == W_h.shape[1] and hasattr(h_tm1, "shape"))):
        which = "`elman`, `leaky`, `gru`, `lstm`" if gated else "`elman` and `leaky`; `eprop` takes gated ones too"
        raise NotImplementedError(
            f"`{name}` is for cells that read their output through W_h [k·n, n] beside a bias [k·n], such as {which}: "
            f"got θ_h of {type(theta_h).__name__}, a state {words.describe(h_tm1)}; use `uoro`, which takes any cell"
        )
    if x_t is not None and not hasattr(x_t, "shape"):
        raise NotImplementedError(
            f"`xs` must be one array [T, *batch, d] for `{name}`: got a {type(x_t).__name__}; give `lengths` for "
            "padding, or use `uoro`, which takes any inputs"
        )


def reads_otherwise(cell):
    raise NotImplementedError(
        "local rules are for cells that read their output z by W_h z, added to a bias, and with the weights that θ_h "
        f"holds: got {cell!r}, whose value changes when W_h z is moved into the bias; use `snap` or `uoro`"
    )


def key_of_feedback(key) -> Any:
    if key is None:
        raise TypeError(
            '`key` must be given, as `feedback="random"` draws a matrix: got None; call `init(theta, h_0, key=key)`'
        )
    return key


def one_array(name, value, wanted):
    if not hasattr(value, "shape"):
        raise NotImplementedError(
            f'`{name}` must be one array {wanted} for `feedback="random"`: got {words.describe(value)}; use '
            '`feedback="symmetric"`'
        )


def feedback(B, y_hat, z):
    """A matrix from the cotangents of ŷ to those of z."""
    wanted = words.describe(jax.ShapeDtypeStruct((*y_hat.shape[-1:], *z.shape[-1:]), z.dtype))
    came = words.describe(B)
    if came != wanted:
        raise ValueError(
            f"`state.feedback` must be a matrix [m, n], {wanted}: got {came}; make the state with `estimator.init`"
        )
