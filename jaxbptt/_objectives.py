"""What the average of a loss is made of: sequences that share time, one number a step and member."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxbptt._axes import one_step, some_member, time_axis
from jaxbptt._errors import words
from jaxbptt._errors.arguments import callable_argument, model, one_of


def average_loss(value, loss, reduction):
    """What F is made of."""
    model(value)
    callable_argument("loss", loss)
    one_of("reduction", reduction, ("mean", "sum"), "weigh the loss itself for anything else")


def sequences(xs, ys, mask):
    """xs, ys and mask share time, and the mask is boolean."""
    T, T_y = time_axis("xs", xs), time_axis("ys", ys)
    if T_y != T:
        raise ValueError(
            f"`xs` and `ys` must share their time axis: got xs={words.describe(xs)}, ys={words.describe(ys)}; "
            "F has one target a step"
        )
    if mask is not None:
        if not hasattr(mask, "dtype") or mask.dtype != jnp.bool_:
            came = mask.dtype if hasattr(mask, "dtype") else type(mask).__name__
            raise TypeError(
                f"`mask` must be boolean: got {came}; write `jnp.asarray(mask, bool)`, or weigh the loss itself (in a "
                "batch it is the third, before h_0, and None for no mask)"
            )
        if mask.ndim < 1 or mask.shape[0] != T:
            raise ValueError(f"`mask` must share the time axis of `xs`, T={T}: got mask.shape={mask.shape}")


def loss_fits(loss, y_hats, ys, mask, batch_shape):
    """The loss gives one number for each member of the batch, and the mask one flag for each of those.

    Returns the dtype of the loss.
    """
    some_member(batch_shape)
    y_hat_t, y_t = one_step(y_hats), one_step(ys)
    L = words.traced("loss", loss, y_hat_t, y_t)
    if not hasattr(L, "shape"):
        raise TypeError(
            f"`loss` must return one array of the shape {batch_shape}: got a {type(L).__name__}; what else is wanted "
            "of y_hats, such as an accuracy, compute from `model.apply`"
        )
    if L.shape != batch_shape:
        raise ValueError(
            f"`loss` must return one number for each member of the batch, shape {batch_shape}: got {words.shape(L)} "
            f"for y_hat_t={words.describe(y_hat_t)}, y_t={words.describe(y_t)}; "
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
