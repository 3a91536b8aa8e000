"""How fast ∂L_t/∂h_{t-k} decays over the lags k, measured one lag after the other.

φ_k/φ_{k-1} is the ratio of mean lengths over the losses that have a step left at lag k. The same losses are on both
sides, so those that have reached the start don't count as a decay.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxbptt.types import Array


class Decay(NamedTuple):
    """Up to lag k: φ_k over φ_0, Σ_{i<k} φ_i, and over the n lags with φ_i > 0: n, Σ log φ_i, Σ i log φ_i."""

    phi: Array
    head: Array
    n: Array
    y: Array
    iy: Array


def none():
    """At lag 0."""
    one = jnp.ones((), jnp.result_type(float))
    return Decay(one, 0 * one, one, 0 * one, 0 * one)


def extended(decay, left, pulled, deltas):
    """One lag more, from the deltas before and after; ``left [T, *batch]``: where there is a step at the new lag."""
    after, before = (jnp.sum(jnp.where(left, _norms(bars, left.ndim), 0)) for bars in (pulled, deltas))
    phi = decay.phi * after / jnp.where(before == 0, 1, before)
    is_left = phi != 0
    y = jnp.where(is_left, jnp.log(jnp.where(is_left, phi, 1)), 0)
    return Decay(phi, decay.head + decay.phi, decay.n + is_left.astype(phi.dtype), decay.y + y, decay.iy + decay.n * y)


def rate(decay):
    """The rate β of log φ_i ≈ i log β + a, by least squares over i < n; 0 from one lag."""
    n, is_slope = decay.n, decay.n > 1
    spread = jnp.where(is_slope, n * (n * n - 1) / 12, 1)  # Σ (i - mean)²
    return jnp.where(is_slope, jnp.exp((decay.iy - (n - 1) / 2 * decay.y) / spread), 0)


def bound(decay):
    """The share of φ_k/(1 - β) in the whole sum: 1 where nothing decays, 0 where nothing is left."""
    rest = (1 - jnp.minimum(rate(decay), 1)) * decay.head
    return jnp.where(decay.phi == 0, 0, decay.phi / jnp.where(decay.phi == 0, 1, decay.phi + rest))


def _norms(bars, axes):
    squares = [jnp.sum(jnp.square(jnp.abs(leaf)), axis=tuple(range(axes, leaf.ndim))) for leaf in jax.tree.leaves(bars)]
    return jnp.sqrt(sum(square.astype(jnp.result_type(float)) for square in squares))
