"""L: one step's loss, ``loss(y_hat_t, y_t) -> [*batch]``, on top of ``optax.losses``; and F, its mean.

F = 1/T Σ_t L(ŷ_t, y_t), averaged over the batch as well. With a mask, over the steps that count.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxbptt._algebra import wide
from jaxbptt._errors.words import is_float
from jaxbptt._trees.cotangents import dtype_of

__all__ = [
    "l2_loss",
    "sigmoid_binary_cross_entropy",
    "softmax_cross_entropy",
]


def l2_loss(y_hat_t, y_t):
    """½ ‖ŷ_t - y_t‖², features summed.

    Args:
        y_hat_t: ``[*batch, m]``.
        y_t: ``[*batch, m]``.

    Returns:
        ``[*batch]``.

    Raises:
        ValueError: when the shapes differ.
        TypeError: when the targets are not floating point.

    >>> l2_loss(jnp.array([3.0, 1.0]), jnp.array([1.0, 0.0])).item()
    2.5
    """
    if (
        np.shape(y_hat_t) != np.shape(y_t)
        or np.ndim(y_t) < 1
        or not all(jnp.issubdtype(dtype_of(y), jnp.floating) for y in (y_hat_t, y_t))
    ):
        _float_targets("l2_loss", y_hat_t, y_t)
    return jnp.sum(optax.losses.l2_loss(y_hat_t, y_t), axis=-1)


def softmax_cross_entropy(y_hat_t, y_t):
    """-log softmax(ŷ_t)[y_t], in nats, for integer labels.

    Args:
        y_hat_t: logits ``[*batch, m]``.
        y_t: labels ``[*batch]`` in 0 … m-1. A label outside gives NaN, as jit allows no exception. Its gradient is 0,
            so look at F.

    Returns:
        ``[*batch]``.

    Raises:
        ValueError: when the shapes don't fit.
        TypeError: when the labels are not integers.

    >>> round(softmax_cross_entropy(jnp.zeros(4), jnp.array(2)).item(), 6)  # log 4
    1.386294
    """
    _integer_targets("softmax_cross_entropy", y_hat_t, y_t)
    largest = min(y_hat_t.shape[-1] - 1, jnp.iinfo(jnp.result_type(y_t)).max)  # their dtype may not hold m
    in_range = (y_t >= 0) & (y_t <= largest)
    label = jnp.where(in_range, y_t, 0)
    y_hat_t = jnp.asarray(y_hat_t)
    logits = y_hat_t.astype(wide(y_hat_t.dtype))  # in float16 the sum of 65,520 exponentials would be infinite
    L = optax.losses.softmax_cross_entropy_with_integer_labels(logits, label).astype(y_hat_t.dtype)
    # A select, not a factor: a loss that drops such a step by a `where` of its own then has a gradient.
    return jnp.where(in_range, L, jnp.nan)


def sigmoid_binary_cross_entropy(y_hat_t, y_t):
    """-Σ_k [y log σ(ŷ) + (1 - y) log(1 - σ(ŷ))], in nats, features summed.

    Args:
        y_hat_t: logits ``[*batch, m]``. An infinite one gives infinity, or NaN where it predicts the target.
        y_t: probabilities or 0/1 values, floating point, ``[*batch, m]``.

    Returns:
        ``[*batch]``.

    Raises:
        ValueError: when the shapes differ.
        TypeError: when the targets are not floating point.

    >>> round(sigmoid_binary_cross_entropy(jnp.zeros(2), jnp.array([0.0, 1.0])).item(), 6)  # 2 log 2
    1.386294
    """
    _float_targets("sigmoid_binary_cross_entropy", y_hat_t, y_t)
    return jnp.sum(optax.losses.sigmoid_binary_cross_entropy(y_hat_t, y_t), axis=-1)


def of_steps(loss, y_hats, ys, weights=None):
    """w_t L(ŷ_t, y_t) for each step and member, ``[T, *batch]``, in a dtype to sum in.

    Where the weight is 0, no value of ``ys`` and ``y_hats``, NaN included, reaches the loss or a gradient.
    """
    if weights is None:
        Ls = jax.vmap(loss)(y_hats, ys)
        return Ls.astype(wide(Ls.dtype))
    counts = weights.astype(bool)

    def counted(tree):  # a select on the inputs as well: 0 · NaN in the pullback would be NaN
        return jax.tree.map(
            lambda leaf: jnp.where(
                counts.reshape(counts.shape + (1,) * (leaf.ndim - counts.ndim)), leaf, jnp.zeros_like(leaf)
            ),
            tree,
        )

    Ls = jax.vmap(loss)(counted(y_hats), counted(ys))
    Ls = jnp.where(counts, Ls, jnp.zeros_like(Ls)).astype(wide(Ls.dtype))
    return Ls if weights.dtype == bool else weights.astype(Ls.dtype) * Ls


def count(weights, steps, batch, dtype, *, each=False):
    """Σ w, over the whole batch or for `each` member."""
    if weights is None:
        shape, number = (batch, steps) if each else ((), steps * math.prod(batch))
        number = float(number) if isinstance(number, int) else jnp.asarray(number)  # a size may be a symbol
        return jnp.broadcast_to(jnp.asarray(number).astype(dtype), shape)
    return jnp.sum(weights, axis=0 if each else None, dtype=dtype)


def mean(total, count):
    """``total / count``, and 0 where nothing counts."""
    return total / jnp.where(count == 0, jnp.ones_like(count), count)


def averaged(total, weights, steps, batch):
    """A sum over all steps and members, divided by Σ w."""
    number = steps * math.prod(batch)
    if weights is None and isinstance(number, int):
        return total / number
    return mean(total, count(weights, steps, batch, total.dtype))


def reduced(Ls, weights, steps, batch, reduction):
    """F of the weighted losses, in the dtype of their sum. They are stacked by step or by block of steps."""
    if reduction == "sum":
        return jnp.sum(Ls)
    if reduction == "mean":
        return averaged(jnp.sum(Ls), weights, steps, batch)
    counts = count(weights, steps, batch, Ls.dtype, each=True)
    means = mean(jnp.sum(Ls, axis=0), counts)
    if reduction == "none":
        return means
    return mean(jnp.sum(means), jnp.sum(counts != 0, dtype=Ls.dtype))


def _float_targets(name, y_hat_t, y_t):
    if not (is_float(y_hat_t) and is_float(y_t)):
        raise TypeError(
            f"losses.{name} takes floating-point predictions and targets: got {dtype_of(y_hat_t)} and {dtype_of(y_t)}"
        )
    if np.shape(y_hat_t) != np.shape(y_t) or np.ndim(y_hat_t) < 1:
        raise ValueError(
            f"losses.{name} takes `y_hat_t` and `y_t` of one shape [*batch, m]: "
            f"got {np.shape(y_hat_t)} and {np.shape(y_t)}"
        )


def _integer_targets(name, y_hat_t, y_t):
    if not is_float(y_hat_t) or not jnp.issubdtype(dtype_of(y_t), jnp.integer):
        raise TypeError(
            f"losses.{name} takes floating-point logits and integer labels: got {dtype_of(y_hat_t)} and {dtype_of(y_t)}"
        )
    if np.ndim(y_hat_t) < 1 or np.shape(y_hat_t)[:-1] != np.shape(y_t):
        raise ValueError(
            f"losses.{name} takes logits [*batch, m] and labels [*batch]: got {np.shape(y_hat_t)} and {np.shape(y_t)}"
        )
