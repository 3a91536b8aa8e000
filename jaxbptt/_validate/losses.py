"""Readouts, losses, targets and masks."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxbptt._cotangents import dtype_of
from jaxbptt._validate import _words
from jaxbptt._validate.axes import one_step, some_member, time_axis
from jaxbptt._validate.sequences import _same_float_dtype


def linear_readout(theta_o, hs):
    """θ_o against what the cell puts out, ``hs [T, *batch, n]``."""
    W_o, b = getattr(theta_o, "W_o", None), getattr(theta_o, "b", None)
    if W_o is None or not hasattr(W_o, "shape"):
        raise TypeError(
            f"`theta.o` must be LinearReadoutParams, as `readout.init` makes it: got {type(theta_o).__name__}"
        )
    if not hasattr(hs, "shape"):
        raise TypeError(
            f"the linear readout reads one array: the cell's output is a {type(hs).__name__}; use `readouts.from_apply`"
        )
    n = np.shape(hs)[-1]
    if np.ndim(W_o) != 2 or W_o.shape[1] != n:
        raise ValueError(f"`theta.o.W_o` must have shape [m, n] with the cell's n={n}: got {np.shape(W_o)}")
    if b is not None and np.shape(b) != W_o.shape[:1]:
        raise ValueError(f"`theta.o.b` must have shape [m] = {W_o.shape[:1]}: got {np.shape(b)}")
    _same_float_dtype("theta.o", theta_o, hs.dtype, "hs")


def linear_network(theta, params_type, readout_params_type):
    """The closed forms are those of W_x, W_h and W_o alone."""
    if not isinstance(theta.h, params_type) or not isinstance(theta.o, readout_params_type) or theta.o.b is not None:
        o = type(theta.o).__name__ + (" with a bias" if getattr(theta.o, "b", None) is not None else "")
        raise TypeError(
            f"closed forms need Theta(h={params_type.__name__}, o={readout_params_type.__name__} with b=None): got "
            f"Theta(h={type(theta.h).__name__}, o={o}); use `jb.rnn(cells.linear(), readouts.linear(bias=False))`"
        )


def readout_fits(g, theta_o, hs):
    if g.check is not None:
        g.check(theta_o, hs)
    _words.traced("readout.apply", g.apply, theta_o, one_step(hs))


def sequences(xs, ys, mask):
    """xs, ys and mask share time, and the mask is boolean."""
    T, T_y = time_axis("xs", xs), time_axis("ys", ys)
    if T_y != T:
        raise ValueError(
            f"`xs` and `ys` must share their time axis: got xs={_words.describe(xs)}, ys={_words.describe(ys)}; "
            "F has one target a step"
        )
    if mask is not None:
        if not hasattr(mask, "dtype") or mask.dtype != jnp.bool_:
            came = mask.dtype if hasattr(mask, "dtype") else type(mask).__name__
            raise TypeError(
                f"`mask` must be boolean: got {came}; write `jnp.asarray(mask, bool)`, or weigh the loss itself"
            )
        if mask.ndim < 1 or mask.shape[0] != T:
            raise ValueError(f"`mask` must share the time axis of `xs`, T={T}: got mask.shape={mask.shape}")


def loss_fits(loss, y_hats, ys, mask, batch_shape):
    """The loss gives one number for each member of the batch, and the mask one flag for each of those.

    Returns the dtype of the loss.
    """
    some_member(batch_shape)
    y_hat_t, y_t = one_step(y_hats), one_step(ys)
    L = _words.traced("loss", loss, y_hat_t, y_t)
    if not hasattr(L, "shape"):
        raise TypeError(
            f"`loss` must return one array of the shape {batch_shape}: got a {type(L).__name__}; what else is wanted "
            "of y_hats, such as an accuracy, compute from `model.apply`"
        )
    if L.shape != batch_shape:
        raise ValueError(
            f"`loss` must return one number for each member of the batch, shape {batch_shape}: got {_words.shape(L)} "
            f"for y_hat_t={_words.describe(y_hat_t)}, y_t={_words.describe(y_t)}; "
            "sum over features, not over the batch"
        )
    if not jnp.issubdtype(L.dtype, jnp.floating):
        raise TypeError(f"`loss` must return real floating point: got {L.dtype}")
    if mask is None:
        return L.dtype
    T = jax.tree.leaves(ys)[0].shape[0]
    for name, tree in (("ys", ys), ("y_hats", y_hats)):
        for path, leaf in jax.tree.leaves_with_path(tree):
            if np.shape(leaf)[1 : mask.ndim] != mask.shape[1:]:
                raise ValueError(
                    f"`mask` must have shape [T, *batch] = {(T, *batch_shape)}, which "
                    f"`{name}{jax.tree_util.keystr(path)}` must begin with: got mask.shape={mask.shape} and "
                    f"{np.shape(leaf)}; use `jnp.broadcast_to`"
                )
    if mask.shape != (T, *batch_shape):
        raise ValueError(
            f"`mask` must have shape [T, *batch] = {(T, *batch_shape)}: got {mask.shape}; "
            "use `jnp.broadcast_to` for one mask over the whole batch"
        )
    return L.dtype


def float_targets(name, y_hat_t, y_t):
    if not _words.is_float(y_hat_t) or not _words.is_float(y_t):
        raise TypeError(
            f"losses.{name} takes floating-point predictions and targets: got {dtype_of(y_hat_t)} and {dtype_of(y_t)}"
        )
    if np.shape(y_hat_t) != np.shape(y_t) or np.ndim(y_hat_t) < 1:
        raise ValueError(
            f"losses.{name} takes `y_hat_t` and `y_t` of one shape [*batch, m]: "
            f"got {np.shape(y_hat_t)} and {np.shape(y_t)}"
        )


def integer_targets(name, y_hat_t, y_t):
    if not _words.is_float(y_hat_t) or not jnp.issubdtype(dtype_of(y_t), jnp.integer):
        raise TypeError(
            f"losses.{name} takes floating-point logits and integer labels: got {dtype_of(y_hat_t)} and {dtype_of(y_t)}"
        )
    if np.ndim(y_hat_t) < 1 or np.shape(y_hat_t)[:-1] != np.shape(y_t):
        raise ValueError(
            f"losses.{name} takes logits [*batch, m] and labels [*batch]: got {np.shape(y_hat_t)} and {np.shape(y_t)}"
        )
