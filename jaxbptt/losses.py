"""L: one step's loss, ``loss(y_hat_t, y_t) -> [*batch]``, on top of ``optax.losses``; and F, its mean.

F = 1/T Σ_t L(ŷ_t, y_t), averaged over the batch as well, or over the steps that a mask counts.
"""

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
    _float_targets("l2_loss", y_hat_t, y_t)
    return jnp.sum(optax.losses.l2_loss(y_hat_t, y_t), axis=-1)


def softmax_cross_entropy(y_hat_t, y_t):
    """-log softmax(ŷ_t)[y_t], in nats, for integer labels.

    Args:
        y_hat_t: logits ``[*batch, m]``.
        y_t: labels ``[*batch]`` in 0 … m-1. A label outside gives NaN, as no exception can be raised under jit; its
            gradient is 0, so look at F.

    Returns:
        ``[*batch]``.

    Raises:
        ValueError: when the shapes don't fit.
        TypeError: when the labels are not integers.

    >>> round(softmax_cross_entropy(jnp.zeros(4), jnp.array(2)).item(), 6)  # log 4
    1.386294
    """
    _integer_targets("softmax_cross_entropy", y_hat_t, y_t)
    largest = min(y_hat_t.shape[-1] - 1, jnp.iinfo(jnp.result_type(y_t)).max)  # m itself may be none of their dtype
    in_range = (y_t >= 0) & (y_t <= largest)
    label = jnp.where(in_range, y_t, 0)
    y_hat_t = jnp.asarray(y_hat_t)
    logits = y_hat_t.astype(wide(y_hat_t.dtype))  # of float16 a sum of 65,520 exponentials would be infinite
    L = optax.losses.softmax_cross_entropy_with_integer_labels(logits, label).astype(y_hat_t.dtype)
    # A select and no factor: a loss that leaves such a step out by a `where` of its own has a gradient.
    return jnp.where(in_range, L, jnp.nan)


def sigmoid_binary_cross_entropy(y_hat_t, y_t):
    """-Σ_k [y log σ(ŷ) + (1 - y) log(1 - σ(ŷ))], in nats, features summed.

    Args:
        y_hat_t: logits ``[*batch, m]``; an infinite one gives infinity, and NaN where the target is what it predicts.
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


def over_time(loss, y_hats, ys, mask=None, *, reduction="mean"):
    """F: the loss of every step, averaged (or summed) over time and batch.

    Args:
        loss: one step's loss, ``(y_hat_t, y_t) -> [*batch]``.
        y_hats: ``[T, *batch, …]``.
        ys: ``[T, *batch, …]``.
        mask: ``[T, *batch]``, True where a step counts. Whatever stands elsewhere in ``ys`` and ``y_hats``, NaN
            included, reaches neither F nor its gradient. If no step counts, F = 0.
        reduction: ``"mean"`` over the steps that count, or ``"sum"``.

    Returns:
        F, a scalar in the dtype of the loss.
    """
    if mask is None:
        Ls = jax.vmap(loss)(y_hats, ys)
        return jnp.mean(Ls) if reduction == "mean" else jnp.sum(Ls)

    def counted(tree):  # a select on the inputs as well: 0 · NaN in the pullback would be NaN
        return jax.tree.map(
            lambda leaf: jnp.where(
                mask.reshape(mask.shape + (1,) * (leaf.ndim - mask.ndim)), leaf, jnp.zeros_like(leaf)
            ),
            tree,
        )

    Ls = jax.vmap(loss)(counted(y_hats), counted(ys))
    F = jnp.sum(jnp.where(mask, Ls, 0), dtype=wide(Ls.dtype))
    if reduction == "mean":
        F = F / jnp.maximum(jnp.sum(mask, dtype=F.dtype), 1)
    return F.astype(Ls.dtype)


def _float_targets(name, y_hat_t, y_t):
    if not is_float(y_hat_t) or not is_float(y_t):
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
