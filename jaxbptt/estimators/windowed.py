"""Truncated backpropagation through time: each loss sees the last K steps of the recursion."""

import functools
from typing import Any, Literal

import jax
from jax import lax

from jaxbptt._errors import arguments
from jaxbptt._factory import factory
from jaxbptt._trees import cotangents
from jaxbptt.estimators import _chunk, _errors, _inputs, _window
from jaxbptt.estimators._chunk import NoInfo
from jaxbptt.estimators._window import TruncatedState
from jaxbptt.types import Estimate, GradientEstimator, Loss, Model, Theta


@_inputs.by_shape
@factory
def windowed(
    model: Model,
    loss: Loss,
    *,
    window: int,
    stride: int = 1,
    inputs: Any = None,
    reduction: Literal["mean", "sum"] = "mean",
) -> GradientEstimator:
    """Truncated BPTT, ``∂F/∂θ_h ≈ Σ_t Σ_{k<K} (∂L_t/∂h_t) c_t … c_{t-k+1} b_{t-k}``.

    The loss of step t sees K steps, its own and the K - 1 before it. The state before these is a constant. Biased for
    K < T, exact for K ≥ T, and always exact in ∂F/∂θ_o. In a stream with θ frozen and ``reduction="sum"``, chunks of
    any size add up to the same. Time: K/stride pullbacks in h a step and O(|θ|). Memory: T + K inputs and states, of
    which a stream carries K - 1. With θ updated between chunks, kept states stay as they were; their Jacobians are
    those of the new θ.

    Args:
        model: f and g.
        loss: L.
        window: K.
        stride: h' of BPTT(h; h'), at most K. A sweep over K steps ends at every step that `stride` divides; it takes
            the losses of the last `stride` steps along. The loss j steps before that end sees K - j steps.
        inputs: one input x_t of one member, or its shape: found from W_x by default. A stream in ``lax.scan`` needs it.
        reduction: ``"mean"`` over the chunk's time and batch, or ``"sum"``.

    Returns:
        A `GradientEstimator`. ``init(theta, h_0=None)`` gives a `TruncatedState`. A model's own start, where it is
        learned, is seen by the losses of the first K steps. The same arguments give the same object.

    Raises:
        TypeError, ValueError: as `jaxbptt.objective` does, and for a window or stride that is no positive integer.

    Source: Williams and Peng (1990), An efficient gradient-based algorithm for on-line training of recurrent network
    trajectories.

    >>> import jax, jax.numpy as jnp, jaxbptt as jb
    >>> model = jb.rnn(jb.cells.gru(), jb.readouts.linear())
    >>> theta = model.init(jax.random.key(0), input_size=3, hidden_size=5, output_size=2)
    >>> estimator = windowed(model, jb.losses.l2_loss, window=4)
    >>> state = estimator.init(theta, jnp.zeros((2, 5)))
    >>> estimate, state = estimator.update(theta, state, jnp.ones((7, 2, 3)), jnp.ones((7, 2, 2)))
    >>> estimate.grads.h.W_x.shape, state.kept.xs.shape
    ((15, 3), (3, 2, 3))
    """
    _chunk.check_factory(model, loss, reduction)
    _chunk.of_one_cell("windowed", model)
    arguments.count("window", window)
    arguments.count("stride", stride)
    _errors.stride(stride, window)
    return GradientEstimator(
        functools.partial(_window.init, model, window - 1, inputs),
        functools.partial(_update, model, loss, reduction, window, stride),
    )


def _update(model, loss, reduction, window, stride, theta, state, xs, ys, *, mask=None, lengths=None, key=None):
    """``(Estimate, state)`` of one batch, or one chunk of a stream: see `jaxbptt.estimators.windowed`."""
    _errors.estimator_state(state, TruncatedState)
    given, pull_beginning = _chunk.begin(model, loss, theta, state.h, xs, ys, mask, lengths, key)
    chunk = _window.forward(model, loss, reduction, theta, given)
    K = window if state.kept is not None else min(window, len(jax.tree.leaves(chunk.hs)[0]) + stride - 1)
    whole = _window.window(model, state.kept, given, chunk, lengths, window - 1, K - 1, stride)
    split, across = whole.split, _window.in_rows(whole, theta.h, chunk.h_bars, K, stride)

    def lag(k, carry):
        deltas, D = _window.arrive(across, k, *carry)
        return _window.pull(split, theta.h, across, k, deltas), D

    deltas, D = lax.fori_loop(0, K - 1, lag, _window.nothing(across))
    deltas, D = _window.arrive(across, K - 1, deltas, D)
    theta_h_bar = _window.theta_h_bar(split, theta.h, across, D)
    if state.h is None:
        deltas = _window.pull(split, theta.h, across, K - 1, deltas)
        h_0_bar = _window.of_the_start(across, K, deltas)
        theta_h_bar = cotangents.add(theta_h_bar, pull_beginning(h_0_bar))  # zero, unless the start is learned
    grads = Theta(theta_h_bar, chunk.theta_o_bar)
    return Estimate(chunk.F, grads, NoInfo()), TruncatedState(chunk.h_T, whole.kept)
