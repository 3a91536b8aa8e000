"""Backpropagation through time as an estimator: the sum of one chunk, from right to left."""

from typing import Any, Literal, NamedTuple

from jaxbptt import _batch, _validate, _varying, losses, readouts
from jaxbptt import _cotangents as cotangents
from jaxbptt._factory import factory
from jaxbptt.adjoints import autodiff
from jaxbptt.types import Adjoint, Estimate, GradientEstimator, Loss, Model, Theta
from jaxbptt.unroll import unroll


class BPTTState(NamedTuple):
    """``h``: the state the next chunk starts from (``None``: the model's initial state).

    >>> import jax.numpy as jnp
    >>> BPTTState(h=jnp.zeros((4, 5))).h.shape  # of a batch of 4, to go on from
    (4, 5)
    """

    h: Any


class BPTTInfo(NamedTuple):
    """``h_0_bar``: ∂F/∂h_0 of the chunk, for an initial state that is learned.

    >>> import jax.numpy as jnp, jaxbptt as jb
    >>> model = jb.rnn(jb.cells.linear(), jb.readouts.identity())
    >>> theta = jb.Theta(jb.cells.LinearParams(W_x=jnp.eye(1), W_h=jnp.eye(1)), ())
    >>> estimator = bptt(model, jb.losses.l2_loss)
    >>> estimate, _ = estimator.update(theta, estimator.init(theta), jnp.ones((2, 1)), jnp.zeros((2, 1)))
    >>> estimate.info.h_0_bar.tolist()  # (1 + 2)/2
    [1.5]
    """

    h_0_bar: Any


@factory
def bptt(
    model: Model,
    loss: Loss,
    *,
    adjoint: Adjoint | None = None,
    reduction: Literal["mean", "sum"] = "mean",
) -> GradientEstimator:
    """Backpropagation through time, ``∂F/∂θ_h = Σ_t b_tᵀ delta_t`` over the chunk given.

    Exact for a chunk that is the whole sequence. Fed a sequence in several chunks it is *truncated*: what a chunk's
    parameters do to later chunks through the carried state is left out, a bias without a general bound.
    Time and memory are the adjoint's; `adjoints.full` keeps T states.

    The state handed on is that of the inputs as given. NaN in those after a member's last step that counts reaches
    neither F nor its gradient, but that state, and so a later chunk in which the member counts again (`cells.masked`
    leaves them out). Where there is such NaN the recursion is run once more to say so; under ``jax.vmap`` always.

    Args:
        model: f and g.
        loss: L.
        adjoint: `jaxbptt.adjoints.full` by default.
        reduction: ``"mean"`` over the chunk's time and batch, or ``"sum"``.

    Returns:
        A `GradientEstimator`. ``init(theta, h_0=None)`` gives a `BPTTState`; ``update`` needs no key, and its info
        is a `BPTTInfo`. The same arguments give the same object.

    Raises:
        TypeError, ValueError: as `jaxbptt.objective` does.

    Source: Werbos (1990), Backpropagation through time: what it does and how to do it.

    >>> import jax, jax.numpy as jnp, jaxbptt as jb
    >>> model = jb.rnn(jb.cells.gru(), jb.readouts.linear())
    >>> theta = model.init(jax.random.key(0), input_size=3, hidden_size=5, output_size=2)
    >>> estimator = bptt(model, jb.losses.l2_loss)
    >>> state = estimator.init(theta)
    >>> estimate, state = estimator.update(theta, state, jnp.ones((7, 4, 3)), jnp.ones((7, 4, 2)))
    >>> estimate.grads.h.W_x.shape, state.h.shape
    ((15, 3), (4, 5))
    """
    _validate.average_loss(model, loss, reduction)
    if adjoint is not None:
        _validate.adjoint(adjoint)
    cell, readout = model.cell, model.readout

    def init(theta, h_0=None, *, key=None):
        _validate.theta(theta)
        return BPTTState(h_0)

    def update(theta, state, xs, ys, *, mask=None, lengths=None, key=None):
        """``(Estimate, state)`` of one batch, or one chunk of a stream: see `jaxbptt.estimators.bptt`."""
        _validate.theta(theta)
        _validate.estimator_state(state, BPTTState)
        _validate.sequences(xs, ys, mask)
        begin = _batch.beginning(model, theta, xs, state.h)
        given, xs = xs, _batch.finite_after_last(xs, mask)

        def recursion(theta_h, h_0):
            return unroll(cell, theta_h, xs, h_0, adjoint=adjoint)

        h_0, pull_beginning = cotangents.pullback(begin, theta.h)
        begun, h_0 = h_0, _batch.read_without_nan(h_0, mask)
        (h_T, hs), pull_recursion = cotangents.pullback(recursion, theta.h, h_0)
        _validate.readout_fits(readout, theta.o, hs)
        (theta_o, hs), pull_alike = cotangents.pullback(_varying.alike, theta.o, hs)
        y_hats = readouts.apply_over_time(readout, theta_o, hs)
        _validate.loss_fits(loss, y_hats, ys, mask, _batch.batch_shape(cell, theta.h, h_0))

        def mean_loss(y_hats):
            return losses.over_time(loss, y_hats, ys, mask, reduction=reduction)

        F, pull_loss = cotangents.pullback(mean_loss, y_hats)
        (y_hat_bars,) = pull_loss(_varying.zeros((), F.dtype, F) + 1)  # 1/T ∂L_t/∂ŷ_t
        theta_o_bar, h_bars = pull_alike(readouts.vjp_over_time(readout, theta_o, hs, y_hat_bars))
        theta_h_bar, h_0_bar = pull_recursion((cotangents.zeros(h_T), h_bars))
        (theta_h_bar_0,) = pull_beginning(h_0_bar)  # zero, unless the initial state is learned
        theta_h_bar = cotangents.add(theta_h_bar, theta_h_bar_0)

        def again(xs, h_0):  # by what goes through forward mode, as the gradient does
            return unroll(cell, theta.h, xs, h_0, adjoint=autodiff())[0]

        h_T = _batch.for_the_next_chunk(again, h_T, (given, begun), (xs, h_0))
        return Estimate(F, Theta(theta_h_bar, theta_o_bar), BPTTInfo(h_0_bar)), BPTTState(h_T)

    return GradientEstimator(init, update)
