"""The sum from left to right. It carries an *influence*: what θ_h has done to the state so far.

a_t = push(a_{t-1})                              RTRL: a_t = b_t + c_t a_{t-1}
∂F/∂θ_h = Σ_t pull(a_t, ∂L_t/∂h_t)               ready at every step, no reverse pass
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from jaxbptt import losses
from jaxbptt._algebra import wide
from jaxbptt._trees import cotangents
from jaxbptt.cells._from_split import split_of, take_step, with_time_axis


class Influence(NamedTuple):
    """The quantity an estimator carries forward, as three functions.

    Attributes:
        init: ``(theta_h, h_0) -> a_0``, before the first step.
        push: ``(theta_h, x_t, h_tm1, h_t, a_tm1) -> a_t``.
        pull: ``(a_t, h_bar_t) -> `` the part of ∂F/∂θ_h that L_t contributes, like ``theta_h_bar`` of `sweep`.
    """

    init: Callable
    push: Callable
    pull: Callable


class Sums(NamedTuple):
    """The sums over the steps so far, in dtypes to sum in."""

    F: jax.Array
    theta_h_bar: jax.Array
    theta_o_bar: jax.Array


def sweep(influence, model, loss, reduction, theta, given, a_0, theta_h_bar):
    """h_T, a_T, and the `Sums` over a chunk, or their mean. They start from ``theta_h_bar``, zeros."""

    def step(carry, inputs):
        h_tm1, a_tm1, sums = carry
        x_t, y_t, w_t = inputs
        _, h_t, _ = take_step(split, theta.h, x_t, h_tm1)
        a_t = influence.push(theta.h, x_t, h_tm1, h_t, a_tm1)
        L_t, bars = of_a_step(theta.o, h_t, *with_time_axis((y_t, w_t)))
        theta_o_bar_t, h_bar_t = cotangents.from_jax(bars)  # (∂L_t/∂ŷ_t) (∂ŷ_t/∂θ_o) and (∂L_t/∂ŷ_t) (∂ŷ_t/∂h_t)
        parts = Sums(L_t, influence.pull(a_t, h_bar_t), theta_o_bar_t)
        return (h_t, a_t, cotangents.accumulate(sums, parts)), None

    split = split_of(given.cell)
    of_a_step = jax.value_and_grad(functools.partial(_loss, model, loss), argnums=(0, 1), allow_int=True)
    F = jnp.zeros((), wide(given.L_dtype))
    nothing = Sums(F, theta_h_bar, cotangents.zeros(theta.o, to_sum=True))
    (h_T, a_T, sums), _ = lax.scan(step, (given.h_0, a_0, nothing), (given.xs, given.ys, given.weights))
    if reduction == "mean":
        steps, (leaves, structure) = jax.tree.leaves(given.ys)[0].shape[0], jax.tree.flatten(sums)
        sums = structure.unflatten([losses.averaged(total, given.weights, steps, given.batch) for total in leaves])
    return h_T, a_T, sums


def _loss(model, loss, theta_o, h_t, ys, weights):
    y_hats = with_time_axis(model.readout.apply(theta_o, model.cell.output(h_t)))
    return jnp.sum(losses.of_steps(loss, y_hats, ys, weights))
