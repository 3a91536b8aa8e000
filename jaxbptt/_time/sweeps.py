"""The two loops of the library.

    forward     h_t = f(x_t, h_{t-1}; θ_h),                      t = 1 … T
    reverse     delta_t = h_bar_t + c_{t+1}ᵀ delta_{t+1},        t = T … 1

Each runs over a *block*: the steps taken together outside the scan, all of T or fewer (`_time.blocks`). Work that is
parallel over time is done for the block at once. Before `forward` this is the products that don't read h_{t-1}; after
`reverse`, the sums Σ b_tᵀ delta_t. A kernel that fuses a loop takes its place here.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxbptt._time.loop import over_time, read
from jaxbptt._trees import cotangents


class Steps(NamedTuple):
    """A block's inputs, states before and after each step, and residuals, ``[K, *batch, …]``."""

    xs: Any
    hs_tm1: Any
    hs: Any
    residuals: Any


def step_vjp(split, theta_h, step, delta_t):
    """``split.step_vjp`` at one of the `Steps`."""
    x_t, h_tm1, h_t, residuals_t = step
    return split.step_vjp(theta_h, x_t, residuals_t, h_tm1, h_t, delta_t)


def forward(split, weights, xs, h_0, *, keep=True):
    """h_K; h_1 … h_K; and, with `keep`, the residuals of each step: h_t = f(x_t, h_{t-1}; θ_h)."""

    def step(h_tm1, u_t):
        h_t, residuals_t = split.step(read(split, weights), u_t, h_tm1)
        return h_t, (h_t, residuals_t if keep else None)

    h_K, (hs, residuals) = over_time(step, h_0, split.project(weights.theta_h, xs))
    return h_K, hs, residuals


def reverse(split, weights, steps, bars, c_delta, *, output=None, plus: Callable = cotangents.add):
    """c_1ᵀ delta_1, and z_bar_1 … z_bar_K: delta_t = h_bar_t + c_{t+1}ᵀ delta_{t+1}.

    Args:
        split: of the cell.
        weights: θ_h, held for a loop.
        steps: the `Steps` of the block.
        bars: the cotangents of ``output(h_t)``, or of h_t; ``None`` where nothing outside the recursion reads a state.
        c_delta: c_{K+1}ᵀ delta_{K+1}.
        output: what is read of a state; ``None``: the state.
        plus: how h_bar_t and c_{t+1}ᵀ delta_{t+1} are added.
    """

    def step(c_delta_tp1, inputs):
        (x_t, h_tm1, h_t, residuals_t), bar_t = inputs
        h_bar_t = bar_t if output is None or bars is None else cotangents.pulled(output, bar_t, h_t)[0]
        delta_t = c_delta_tp1 if bars is None else plus(h_bar_t, c_delta_tp1)
        z_bar_t, c_delta_t = split.step_vjp(read(split, weights), x_t, residuals_t, h_tm1, h_t, delta_t)
        return c_delta_t, z_bar_t

    return over_time(step, c_delta, (steps, bars), reverse=True)


def shifted(h_0, hs):
    """h_0 … h_{K-1}."""
    leaves, structure = jax.tree.flatten(hs)
    before = zip(jax.tree.leaves(h_0), leaves, strict=True)
    return structure.unflatten([jnp.concatenate([h[None], later[:-1]]) for h, later in before])


def shifted_back(hs_tm1, h_K):
    """h_1 … h_K, from h_0 … h_{K-1}."""
    leaves, structure = jax.tree.flatten(hs_tm1)
    after = zip(leaves, jax.tree.leaves(h_K), strict=True)
    return structure.unflatten([jnp.concatenate([h[1:], last[None]]) for h, last in after])
