"""Backpropagation through time as an estimator: the sum of one chunk, from right to left."""

import functools
from typing import Any, Literal, NamedTuple

from jaxbptt._errors import trees
from jaxbptt._factory import factory
from jaxbptt._trees import cotangents
from jaxbptt.estimators import _chunk, _errors
from jaxbptt.layers import network
from jaxbptt.objective import evaluate, objective
from jaxbptt.types import Adjoint, Estimate, GradientEstimator, Loss, Model


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

    Exact for a chunk that is the whole sequence. Over several chunks it is *truncated*: it leaves out what a chunk's
    parameters do to later chunks through the carried state. That bias has no general bound. Time and memory are the
    adjoint's; `adjoints.full` keeps T states. The state carried on is each member's last real one. A bidirectional
    model reads whole sequences: its state is ``None`` again.

    Args:
        model: f and g.
        loss: L.
        adjoint: `jaxbptt.adjoints.full` by default.
        reduction: ``"mean"`` over the chunk's time and batch, or ``"sum"``.

    Returns:
        A `GradientEstimator`. ``init(theta, h_0=None)`` gives a `BPTTState`; the info of ``update`` is a `BPTTInfo`.
        The same arguments give the same object.

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
    _chunk.check_factory(model, loss, reduction)
    F = objective(model, loss, adjoint=adjoint, reduction=reduction)

    def init(theta, h_0=None, *, key=None):
        trees.theta(theta)
        return BPTTState(h_0)

    return GradientEstimator(init, functools.partial(_update, F))


def _update(F, theta, state, xs, ys, *, mask=None, lengths=None, key=None):
    """``(Estimate, state)`` of one batch, or one chunk of a stream: see `jaxbptt.estimators.bptt`."""
    _errors.estimator_state(state, BPTTState)
    given, pull_beginning = _chunk.begin(F.model, F.loss, theta, state.h, xs, ys, mask, lengths, key)

    def F_and_state(theta, h_0):
        value, aux = evaluate(F, theta, given._replace(h_0=h_0))
        return value, aux.h_T

    (value, h_T), pull = cotangents.pullback(F_and_state, theta, given.h_0)
    theta_bar, h_0_bar = pull((cotangents.zero((), value.dtype, value) + 1, cotangents.zeros(h_T)))
    theta_h_bar = cotangents.add(theta_bar.h, pull_beginning(h_0_bar))  # zero, unless the initial state is learned
    return Estimate(value, theta_bar._replace(h=theta_h_bar), BPTTInfo(h_0_bar)), BPTTState(
        h_T if network.goes_on(F.model) else None
    )
