"""F: the average loss over the steps, as a function that ``jax.grad`` differentiates by the chosen adjoint."""

from collections.abc import Callable
from typing import Any, Literal

from jaxbptt import _batch, _validate, adjoints, losses
from jaxbptt._factory import factory
from jaxbptt.types import Adjoint, Loss, Model


@factory
def objective(
    model: Model,
    loss: Loss,
    *,
    adjoint: Adjoint | None = None,
    reduction: Literal["mean", "sum"] = "mean",
) -> Callable:
    """``F(theta, xs, ys, h_0=None, *, mask=None) = 1/T Σ_t L(ŷ_t, y_t)``, averaged over the batch as well.

    Exact. Its gradient is as exact as the adjoint, which also says what that costs.

    Args:
        model: f and g, from `jaxbptt.rnn`.
        loss: L, ``(y_hat_t, y_t) -> [*batch]``.
        adjoint: how the recursion is differentiated; `jaxbptt.adjoints.full` by default.
        reduction: ``"mean"`` over time and batch, or ``"sum"``.

    Returns:
        F. Its arguments: ``theta``, a `Theta`; ``xs [T, *batch, d]``; ``ys`` with leaves ``[T, *batch, …]``; ``h_0``,
        the model's initial state when ``None``, of the batch of ``xs`` (floating-point leaves have one axis of features
        behind it; of integers alone it is the fewest axes with which f returns a state like its own);
        ``mask [T, *batch]``, True where a step counts in F.
        What ``ys`` holds where it doesn't, and a NaN in ``xs`` after a sequence's last step that counts, reach
        neither F nor a gradient; a recursion that overflows there reaches the gradient (`jaxbptt.cells.masked` stands
        still instead). In float16 the cotangent of a step is its share 1/(T·B), which beyond T·B = 16,000 is no normal
        number: take the sum of a loss that you scale, or bfloat16. The same arguments give the same function.

    Raises:
        TypeError, ValueError: now, for what is not a model, loss, adjoint or reduction; and when F is traced, for
            shapes, dtypes and trees that don't fit.

    >>> import jax, jax.numpy as jnp, jaxbptt as jb
    >>> model = jb.rnn(jb.cells.elman(), jb.readouts.linear())
    >>> theta = model.init(jax.random.key(0), input_size=3, hidden_size=5, output_size=2)
    >>> F = objective(model, jb.losses.l2_loss)
    >>> grads = jax.grad(F)(theta, jnp.ones((7, 4, 3)), jnp.ones((7, 4, 2)))
    >>> grads.h.W_h.shape
    (5, 5)
    """
    _validate.average_loss(model, loss, reduction)
    adjoint = adjoints.full() if adjoint is None else adjoint
    _validate.adjoint(adjoint)

    def F(theta, xs, ys, h_0=None, *, mask=None, lengths=None):
        """F of ``theta`` for ``xs [T, *batch, d]`` and ``ys [T, *batch, …]``: see `jaxbptt.objective`."""
        _validate.sequences(xs, ys, mask)
        h_0 = _batch.initial_state(model, theta, xs, h_0)
        y_hats = model.apply(theta, _batch.finite_after_last(xs, mask), h_0, adjoint=adjoint)
        _validate.loss_fits(loss, y_hats, ys, mask, _batch.batch_shape(model.cell, theta.h, h_0))
        return losses.over_time(loss, y_hats, ys, mask, reduction=reduction)

    marked: Any = F
    marked.reduction = reduction  # how parts of a batch combine: `jaxbptt.data_parallel` asks
    return F
