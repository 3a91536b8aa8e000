"""Truncated backpropagation through time whose lag follows the decay of the deltas that it measures."""

import functools
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from jaxbptt._errors import arguments
from jaxbptt._factory import factory
from jaxbptt._trees import cotangents
from jaxbptt.estimators import _chunk, _decay, _errors, _inputs, _window
from jaxbptt.estimators._window import TruncatedState
from jaxbptt.types import Array, Estimate, GradientEstimator, Loss, Model, Theta


class AdaptiveInfo(NamedTuple):
    """The lag K that was taken, the decay rate β of the deltas, and the bound on what K leaves out, between 0 and 1.

    >>> AdaptiveInfo(lag=jnp.array(7), decay=jnp.array(0.7), bound=jnp.array(0.08)).lag.item()
    7
    """

    lag: Array
    decay: Array
    bound: Array


@_inputs.by_shape
@factory
def adaptive(
    model: Model,
    loss: Loss,
    *,
    tolerance: float = 0.1,
    max_window: int | None = None,
    inputs: Any = None,
    reduction: Literal["mean", "sum"] = "mean",
) -> GradientEstimator:
    """Truncated BPTT as in `windowed`, with the smallest K that is measured to leave out at most `tolerance`.

    With φ_k the mean of ‖∂L_t/∂h_{t-k}‖ and β from the regression of log φ_i on i ≤ K, it leaves out at most
    ``φ_K/(1 - β)`` of ``Σ_{k<K} φ_k + φ_K/(1 - β)``, if φ goes on to decay at the rate β. That share is β^K for a
    geometric decay. It is one of lengths: where short lags cancel in ∂F/∂θ_h, as with white noise, the relative bias is
    larger, so take a tolerance of 0.1 or less. Each update measures and chooses anew. Biased, exact where K covers all
    steps, and in ∂F/∂θ_o. Time: K + 1 pullbacks in h a step and O(|θ|). Memory: T + `max_window` inputs and states. The
    lag is data: shapes don't change under ``jit``.

    Args:
        model: f and g.
        loss: L.
        tolerance: of the share that is left out, above 0.
        max_window: the largest K, and the steps that a stream keeps. ``None``: all of the chunk and nothing before it.
        inputs: one input x_t of one member, or its shape: found from W_x by default. Read where `max_window` is given.
        reduction: ``"mean"`` over the chunk's time and batch, or ``"sum"``.

    Returns:
        A `GradientEstimator`. ``init(theta, h_0=None)`` gives a `TruncatedState`; the info of ``update`` is an
        `AdaptiveInfo`. The same arguments give the same object.

    Raises:
        TypeError, ValueError: as `jaxbptt.objective` does, and for a tolerance or window that is not positive.

    Notes:
        Forward mode only goes through an update: the number of lags is data.

    Source: Aicher, Foti and Fox (2019), Adaptively truncating backpropagation through time to control gradient bias.
    There β comes from long windows at times and the bound holds M = max ‖b_t‖; here both come from each update's own
    lags, and the share is of Σ φ.

    >>> import jaxbptt as jb
    >>> model = jb.rnn(jb.cells.linear(), jb.readouts.identity())
    >>> theta = jb.Theta(jb.cells.LinearParams(W_x=jnp.eye(1), W_h=0.5 * jnp.eye(1)), ())
    >>> estimator = adaptive(model, jb.losses.l2_loss, tolerance=0.1)
    >>> estimate, _ = estimator.update(theta, estimator.init(theta), jnp.ones((20, 1)), jnp.zeros((20, 1)))
    >>> estimate.info.lag.item(), round(estimate.info.decay.item(), 4), round(estimate.info.bound.item(), 4)  # 0.5⁴
    (4, 0.5, 0.0625)
    """
    _chunk.check_factory(model, loss, reduction)
    _chunk.of_one_cell("adaptive", model)
    arguments.numbers(tolerance=tolerance)
    _errors.above("tolerance", tolerance, 0)
    if max_window is not None:
        arguments.count("max_window", max_window)
    return GradientEstimator(
        functools.partial(_window.init, model, max_window or 0, inputs),
        functools.partial(_update, model, loss, reduction, tolerance, max_window),
    )


def _update(model, loss, reduction, tolerance, max_window, theta, state, xs, ys, *, mask=None, lengths=None, key=None):
    """``(Estimate, state)`` of one batch, or one chunk of a stream: see `jaxbptt.estimators.adaptive`."""
    _errors.estimator_state(state, TruncatedState)
    given, pull_beginning = _chunk.begin(model, loss, theta, state.h, xs, ys, mask, lengths, key)
    chunk = _window.forward(model, loss, reduction, theta, given)
    T = len(jax.tree.leaves(chunk.hs)[0])
    most = max_window if state.kept is not None else min(max_window or T, T)
    whole = _window.window(model, state.kept, given, chunk, lengths, max_window or 0, most)
    split, across = whole.split, _window.in_rows(whole, theta.h, chunk.h_bars, most + 1)

    def lag(k, carry):  # to lag k + 1, by way of the losses' deltas at lag k
        deltas, D, decay = carry
        deltas, D = _window.arrive(across, k, deltas, D)
        pulled = _window.pull(split, theta.h, across, k, deltas)
        return pulled, D, _decay.extended(decay, _window.at_lag(across, k + 1).xs.mask, pulled, deltas)

    def goes_on(carry):
        k, (_, _, decay) = carry
        return (k < most) & ~(_decay.bound(decay) <= tolerance)

    begun = lag(0, (*_window.nothing(across), _decay.none()))
    K, (deltas, D, decay) = lax.while_loop(
        goes_on, lambda carry: (carry[0] + 1, lag(*carry)), (jnp.ones((), jnp.int32), begun)
    )
    theta_h_bar = _window.theta_h_bar(split, theta.h, across, D)
    if state.h is None:
        h_0_bar = _window.of_the_start(across, K, deltas)
        theta_h_bar = cotangents.add(theta_h_bar, pull_beginning(h_0_bar))  # zero, unless the start is learned
    info = AdaptiveInfo(K, _decay.rate(decay), _decay.bound(decay))
    return Estimate(chunk.F, Theta(theta_h_bar, chunk.theta_o_bar), info), TruncatedState(chunk.h_T, whole.kept)
