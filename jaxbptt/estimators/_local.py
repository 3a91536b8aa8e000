"""Local rules: a_t by what a unit does to itself, and the error sent back by W_o or by a random matrix.

a_t = b_t + d_t a_{t-1},   d_t: c_t without the paths through W_h, z_{t-1} = output(h_{t-1}) held fixed

1. f reads z_{t-1} by W_h z_{t-1} alone, beside a bias. With W_h = 0 and W_h z_{t-1} in the bias the value is the same.
2. So d_t is c_t of f with these parameters: the leak of a rate unit, the gates of a gated one.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxbptt import losses, readouts
from jaxbptt._trees import cotangents
from jaxbptt.cells._from_split import with_time_axis
from jaxbptt.estimators import _blocks, _errors, _forward, _inputs, _pattern
from jaxbptt.types import Array, GradientEstimator


class LocalState(NamedTuple):
    """``h``: the state; ``a``: the traces in blocks; ``feedback [m, n]``: the random matrix, or ``None``.

    >>> LocalState(h=None, a=None).feedback is None
    True
    """

    h: Any
    a: tuple[Array, ...] | None
    feedback: Array | None = None


def estimator(rule, feedback) -> GradientEstimator:
    """The estimator of a rule, with this feedback."""
    made = _forward.estimator(rule)
    if feedback == "symmetric":
        return made
    return GradientEstimator(functools.partial(_init, rule), functools.partial(_update, rule))


def influence(name, gated, inputs, cell, theta_h, x_t, h_tm1, a):
    """The `Influence` of a local rule, for cells with these parameters."""
    _errors.weights_of_the_state(name, cell, theta_h, x_t, h_tm1, gated)
    x_t = _inputs.example(cell, theta_h, inputs) if x_t is None else x_t
    if x_t is None:
        return None
    found = _pattern.pattern(cell, theta_h, x_t, h_tm1, None, without_recurrence)
    return _blocks.influence(found, theta_h, cut=without_recurrence)


def without_recurrence(cell, theta_h, h_tm1):
    """θ_h with which f has the same value and reads h_{t-1} without W_h."""
    through = theta_h.W_h @ cell.output(h_tm1)
    bias = "b_h" if hasattr(theta_h, "b_h") else "b"
    return theta_h._replace(**{"W_h": jnp.zeros_like(theta_h.W_h), bias: getattr(theta_h, bias) + through})


def _init(rule, theta, h_0=None, *, key=None):
    state = _forward.init(rule, theta, h_0)
    key = _errors.key_of_feedback(key)
    h = jax.eval_shape(rule.model.initial_state, theta) if h_0 is None else h_0
    z = jax.eval_shape(rule.model.cell.output, h)
    _errors.one_array("output", z, "[*batch, n]")
    y_hat = readouts.fits(rule.model.readout, theta.o, z)
    _errors.one_array("y_hats", y_hat, "[T, *batch, m]")
    n = z.shape[-1]
    return state._replace(feedback=jax.random.normal(key, (y_hat.shape[-1], n), z.dtype) / n**0.5)


def _update(rule, theta, state, xs, ys, *, mask=None, lengths=None, key=None):
    """``(Estimate, state)`` of one batch, or one chunk of a stream."""
    _errors.estimator_state(state, rule.state_type)
    read = functools.partial(_read, rule.model, rule.loss, state.feedback)
    return _forward.update(rule, theta, state, xs, ys, mask=mask, lengths=lengths, key=key, read=read)


def _read(model, loss, B, theta_o, h_t, y_t, w_t):
    """L_t, (∂L_t/∂ŷ_t) (∂ŷ_t/∂θ_o) and (∂L_t/∂ŷ_t) B (∂z_t/∂h_t)."""
    z_t, pull_output = jax.vjp(model.cell.output, h_t)
    y_hat_t, pull_readout = jax.vjp(lambda theta_o: model.readout.apply(theta_o, z_t), theta_o)
    _errors.feedback(B, y_hat_t, z_t)
    L_t, y_hat_bar_t = jax.value_and_grad(functools.partial(_loss, loss, y_t, w_t))(y_hat_t)
    return L_t, *cotangents.from_jax((*pull_readout(y_hat_bar_t), *pull_output(y_hat_bar_t @ B)))


def _loss(loss, y_t, w_t, y_hat_t):
    return jnp.sum(losses.of_steps(loss, *with_time_axis((y_hat_t, y_t, w_t))))
