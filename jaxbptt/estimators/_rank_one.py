"""The sensitivity a_t as an outer product of two random vectors: the influence of UORO.

a_t ≈ h̃_t ⊗ θ̃_t,   ν_t random signs, E[ν νᵀ] = 1

h̃_t = ρ_0 c_t h̃_{t-1} + ρ_1 ν_t              ρ_0 = √(‖θ̃_{t-1}‖ / (‖c_t h̃_{t-1}‖ + ε_0)) + ε_0
θ̃_t = θ̃_{t-1}/ρ_0 + ν_tᵀ b_t/ρ_1             ρ_1 = √(‖ν_tᵀ b_t‖ / (‖ν_t‖ + ε_1)) + ε_1
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from jaxbptt._algebra import wide
from jaxbptt._trees import vectors
from jaxbptt.estimators import _forward
from jaxbptt.types import Array


class RankOne(NamedTuple):
    """a ≈ h̃ ⊗ θ̃, of each sample: ``h [*batch, samples, N]``, ``theta [*batch, samples, P]``, real.

    >>> RankOne(h=jnp.ones((4, 1, 5)), theta=jnp.ones((4, 1, 45))).h.shape
    (4, 1, 5)
    """

    h: Array
    theta: Array


def influence(samples, epsilon0, epsilon1):
    """The `Influence` of that many samples."""
    return _forward.Influence(
        init=functools.partial(_init, samples, epsilon1),
        push=functools.partial(_push, samples, epsilon0, epsilon1),
        pull=_pull,
        gradient=vectors.gradient,
        through=_forward.through_the_newest_step,
    )


def _init(samples, epsilon1, theta_h, h_0, start, key):
    """a_0 = dh_0/dθ_h: zero, or the first term of a start that is learned."""
    (theta, theta_of), (h, _) = vectors.flatten(theta_h), vectors.flatten(h_0)
    zero = RankOne(*(jnp.zeros((samples, one.size), wide(one.dtype)) for one in (h, theta)))
    if start is None:
        return zero
    _, pull = jax.vjp(lambda theta: vectors.flatten(start(theta_of(theta)))[0], theta)
    signs = _signs(key, samples, h)
    return _joined(zero, signs, jax.vmap(pull)(signs)[0], epsilon1, epsilon1)


def _push(samples, epsilon0, epsilon1, cell, theta_h, x_t, h_tm1, h_t, a_tm1, key_t):
    h, h_of = vectors.flatten(h_tm1)

    def f(h):
        return vectors.flatten(cell.apply(theta_h, x_t, h_of(h)))[0]

    def c_times(h_dot):
        return jax.jvp(f, (h,), (h_dot.astype(h.dtype),))[1]

    def times_b(signs):
        return vectors.gradient_vector(cell.vjp(theta_h, x_t, h_tm1, h_t, vectors.gradient(signs, h_t))[0])

    signs = _signs(key_t, samples, h)
    old = RankOne(jax.vmap(c_times)(a_tm1.h).astype(a_tm1.h.dtype), a_tm1.theta)
    return _joined(old, signs, jax.vmap(times_b)(signs), epsilon0, epsilon1)


def _signs(key, samples, h):
    """ν of each sample, ``[samples, N]``."""
    hadamard = lax.population_count(jnp.arange(samples)[:, None] & jnp.arange(h.size)[None]) % 2
    return jax.random.rademacher(key, (1, h.size), h.dtype) * (1 - 2 * hadamard).astype(h.dtype)


def _joined(old, signs, b, epsilon0, epsilon1):
    """h̃ and θ̃ with one term more. Each factor is scaled so that the two are of one length."""
    signs, b = signs.astype(old.h.dtype), b.astype(old.theta.dtype)
    rho_0 = jnp.sqrt(_norm(old.theta) / (_norm(old.h) + epsilon0)) + epsilon0
    rho_1 = jnp.sqrt(_norm(b) / (_norm(signs) + epsilon1)) + epsilon1
    return RankOne(rho_0 * old.h + rho_1 * signs, old.theta / rho_0 + b / rho_1)


def _norm(vectors_of_samples):
    return jnp.linalg.norm(vectors_of_samples, axis=-1, keepdims=True)


def _pull(a, h_bar):
    """The mean over samples of (∂L/∂h · h̃) θ̃."""
    h_bar = vectors.gradient_vector(h_bar)[None].astype(a.h.dtype)
    # At a step that nothing reads, a may have overflowed: 0 · inf would be NaN.
    along = jnp.sum(jnp.where(h_bar == 0, 0, h_bar * a.h), axis=-1, keepdims=True)
    return jnp.mean(jnp.where(along == 0, 0, along * a.theta), axis=0)
