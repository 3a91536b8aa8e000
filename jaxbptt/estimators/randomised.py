"""Backpropagation through time cut at random places, and reweighted so that its mean is exact (ARTBP)."""

import functools
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp

from jaxbptt._errors import arguments
from jaxbptt._factory import factory
from jaxbptt._time import sweeps
from jaxbptt._time.loop import hold
from jaxbptt._trees import cotangents
from jaxbptt.estimators import _chunk, _errors, _inputs, _window
from jaxbptt.estimators._window import TruncatedState
from jaxbptt.types import Array, Estimate, GradientEstimator, Loss, Model, Theta


class RandomisedInfo(NamedTuple):
    """``cuts``: how many real steps of the chunk, over all members, handed nothing back.

    >>> RandomisedInfo(cuts=jnp.array(3)).cuts.item()
    3
    """

    cuts: Array


@_inputs.by_shape
@factory
def randomised(
    model: Model,
    loss: Loss,
    *,
    mean_window: float = 16.0,
    keep: int = 0,
    inputs: Any = None,
    reduction: Literal["mean", "sum"] = "mean",
) -> GradientEstimator:
    """ARTBP: ``delta_{t-1} = ∂L_{t-1}/∂h_{t-1} + ξ_t c_tᵀ delta_t``, where ξ_t is 0 with probability p, else 1/(1 - p).

    Unbiased and noisy: ξ has the mean 1, independently at every step and member. That holds for a chunk that is the
    whole sequence. In a stream it is unbiased for the sum in which each chunk's losses see their chunk and `keep` steps
    before it. A lag of k steps has a second moment 1/(1 - p)^k times the exact one. Exact in ∂F/∂θ_o. Time: that of
    BPTT over `keep` + T steps. Memory: `keep` + T inputs and states. With θ updated between chunks, kept states stay as
    they were.

    Args:
        model: f and g.
        loss: L.
        mean_window: the mean number of steps from a cut to the next, 1/p, above 1.
        keep: steps before a chunk that its losses see.
        inputs: one input x_t of one member, or its shape: found from W_x by default. Read where `keep` is not 0.
        reduction: ``"mean"`` over the chunk's time and batch, or ``"sum"``.

    Returns:
        A `GradientEstimator`. ``init(theta, h_0=None)`` gives a `TruncatedState`; ``update`` needs a key, a new one
        for each chunk. The same arguments give the same object.

    Raises:
        TypeError, ValueError: as `jaxbptt.objective` does; for a `mean_window` that is not above 1; without a key.

    Source: Tallec and Ollivier (2017), Unbiasing truncated backpropagation through time.

    >>> import jaxbptt as jb
    >>> model = jb.rnn(jb.cells.gru(), jb.readouts.linear())
    >>> theta = model.init(jax.random.key(0), input_size=3, hidden_size=5, output_size=2)
    >>> estimator, key = randomised(model, jb.losses.l2_loss, mean_window=4), jax.random.key(1)
    >>> estimate, _ = estimator.update(theta, estimator.init(theta), jnp.ones((7, 2, 3)), jnp.ones((7, 2, 2)), key=key)
    >>> estimate.grads.h.W_x.shape
    (15, 3)
    """
    _chunk.check_factory(model, loss, reduction)
    _chunk.of_one_cell("randomised", model)
    arguments.numbers(mean_window=mean_window)
    _errors.above("mean_window", mean_window, 1)
    arguments.count("keep", keep, 0)
    return GradientEstimator(
        functools.partial(_window.init, model, keep, inputs),
        functools.partial(_update, model, loss, reduction, 1 / mean_window, keep),
    )


def _update(model, loss, reduction, p, keep, theta, state, xs, ys, *, mask=None, lengths=None, key=None):
    """``(Estimate, state)`` of one batch, or one chunk of a stream: see `jaxbptt.estimators.randomised`."""
    _errors.estimator_state(state, TruncatedState)
    key = _errors.given_key(key)
    given, pull_beginning = _chunk.begin(model, loss, theta, state.h, xs, ys, mask, lengths, key)
    chunk = _window.forward(model, loss, reduction, theta, given)
    whole = _window.window(model, state.kept, given, chunk, lengths, keep, keep)
    steps, split = _window.with_residuals(whole.split, theta.h, whole.steps), whole.split
    real = steps.xs.mask
    cuts = real & jax.random.bernoulli(key, p, real.shape)
    factors = jnp.where(real, jnp.where(cuts, 0, 1 / (1 - p)), 1)
    before = jax.tree.map(lambda leaf: jnp.zeros_like(leaf, shape=(whole.fill, *leaf.shape[1:])), chunk.h_bars)
    bars = jax.tree.map(lambda *both: jnp.concatenate(both), before, chunk.h_bars)
    # The factor of a step rides on its input.
    cut = split._replace(step_vjp=functools.partial(_cut_step_vjp, split))
    reversed_ = steps._replace(xs=(steps.xs, factors)), bars, cotangents.zeros(chunk.h_T)
    h_0_bar, z_bars = sweeps.reverse(cut, hold(split, theta.h), *reversed_)
    theta_h_bar = split.param_vjp(theta.h, *steps, z_bars)
    if state.h is None:
        theta_h_bar = cotangents.add(theta_h_bar, pull_beginning(h_0_bar))  # zero, unless the start is learned
    info = RandomisedInfo(jnp.sum(cuts[whole.fill :], dtype=jnp.int32))
    return Estimate(chunk.F, Theta(theta_h_bar, chunk.theta_o_bar), info), TruncatedState(chunk.h_T, whole.kept)


def _cut_step_vjp(split, theta_h, x_t, residuals_t, h_tm1, h_t, delta_t):
    """z_bar_t and ξ_t c_tᵀ delta_t."""
    x_t, factor = x_t
    z_bar_t, h_bar_tm1 = split.step_vjp(theta_h, x_t, residuals_t, h_tm1, h_t, delta_t)
    return z_bar_t, jax.tree.map(functools.partial(_scaled, factor), h_bar_tm1)


def _scaled(factor, bar):
    return factor.reshape(factor.shape + (1,) * (bar.ndim - factor.ndim)).astype(bar.dtype) * bar
