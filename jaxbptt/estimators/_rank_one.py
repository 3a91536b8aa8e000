"""The sensitivity a_t as an outer product of two random vectors: the influence of UORO.

a_t ≈ h̃_t ⊗ θ̃_t,   ν_t random signs, E[ν νᵀ] = 1

h̃_t = ρ_0 c_t h̃_{t-1} + ρ_1 ν_t              ρ_0 = √(‖θ̃_{t-1}‖ / (‖c_t h̃_{t-1}‖ + ε_0)) + ε_0
θ̃_t = θ̃_{t-1}/ρ_0 + ν_tᵀ b_t/ρ_1             ρ_1 = √(‖ν_tᵀ b_t‖ / (‖ν_t‖ + ε_1)) + ε_1
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from jaxbptt._algebra import wide
from jaxbptt._trees import cotangents, vectors
from jaxbptt.estimators import _forward
from jaxbptt.types import Array


class RankOne(NamedTuple):
    """a ≈ h̃ ⊗ θ̃, of each sample: ``h [*batch, samples, N]``, real; ``theta``, a tree like θ_h ``[*batch, samples, …]``.

    >>> RankOne(h=jnp.ones((4, 1, 5)), theta={"W": jnp.ones((4, 1, 5, 3))}).h.shape
    (4, 1, 5)
    """

    h: Array
    theta: Any


def influence(samples, epsilon0, epsilon1):
    """The `Influence` of that many samples."""
    return _forward.Influence(
        init=functools.partial(_init, samples, epsilon1),
        push=functools.partial(_push, samples, epsilon0, epsilon1),
        pull=_pull,
        gradient=cotangents.narrow,
        through=_forward.through_the_newest_step,
    )


def _init(samples, epsilon1, theta_h, h_0, start, key):
    """a_0 = dh_0/dθ_h: zero, or the first term of a start that is learned."""
    h, _ = vectors.flatten(h_0)
    zero = RankOne(jnp.zeros(h.size, wide(h.dtype)), cotangents.zeros(theta_h, to_sum=True))
    zero = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (samples, *leaf.shape)), zero)
    if start is None:
        return zero
    signs = _signs(key, samples, h)
    _, pull = cotangents.pullback(start, theta_h)
    b = jax.vmap(lambda nu: pull(vectors.gradient(nu, h_0))[0])(signs)
    return jax.vmap(functools.partial(_joined, epsilon1, epsilon1))(zero, signs, b)


def _push(samples, epsilon0, epsilon1, cell, theta_h, x_t, h_tm1, h_t, a_tm1, key_t):
    h, h_of = vectors.flatten(h_tm1)

    def f(h):
        return vectors.flatten(cell.apply(theta_h, x_t, h_of(h)))[0]

    def push(a_tm1, nu):
        c_h = jax.jvp(f, (h,), (a_tm1.h.astype(h.dtype),))[1].astype(a_tm1.h.dtype)
        nu_b, _, _ = cell.vjp(theta_h, x_t, h_tm1, h_t, vectors.gradient(nu, h_t))
        return _joined(epsilon0, epsilon1, a_tm1._replace(h=c_h), nu, nu_b)

    return jax.vmap(push)(a_tm1, _signs(key_t, samples, h))


def _signs(key, samples, h):
    """ν of each sample, ``[samples, N]``.

    Products ν_i ν_j of two units cancel over the samples wherever i and j differ in a bit that k reaches. Signs that
    alternate over time instead cancel products of two steps, and measured worse than draws of their own.
    """
    hadamard = lax.population_count(jnp.arange(samples)[:, None] & jnp.arange(h.size)[None]) % 2
    return jax.random.rademacher(key, (1, h.size), h.dtype) * (1 - 2 * hadamard).astype(h.dtype)


def _joined(epsilon0, epsilon1, old, nu, nu_b):
    """h̃ and θ̃ with one term more. Each factor is scaled so that the two are of one length."""
    nu, nu_b = nu.astype(old.h.dtype), cotangents.narrow(nu_b, old.theta)
    rho_0 = jnp.sqrt(norm(old.theta, nu.dtype) / (jnp.linalg.norm(old.h) + epsilon0)) + epsilon0
    rho_1 = jnp.sqrt(norm(nu_b, nu.dtype) / (jnp.linalg.norm(nu) + epsilon1)) + epsilon1
    theta = cotangents.accumulate(_times(1 / rho_0, old.theta), _times(1 / rho_1, nu_b))
    return RankOne(rho_0 * old.h + rho_1 * nu, theta)


def norm(tree, dtype, first=0):
    """‖·‖ over all leaves, their axes from `first` on."""
    squares = [jnp.sum(jnp.abs(z) ** 2, range(first, z.ndim)).astype(dtype) for z in jax.tree.leaves(tree)]
    return jnp.sqrt(sum(squares[1:], squares[0]))


def _times(scale, tree):
    return jax.tree.map(lambda leaf: scale.astype(jnp.abs(leaf).dtype) * leaf, tree)


def _pull(a, h_bar):
    """The mean over samples of (∂L/∂h · h̃) θ̃."""
    return jax.tree.map(functools.partial(jnp.mean, axis=0), jax.vmap(_pulled, in_axes=(0, None))(a, h_bar))


def _pulled(a, h_bar):
    h_bar = vectors.gradient_vector(h_bar).astype(a.h.dtype)
    # At a step that nothing reads, a may have overflowed: 0 · inf would be NaN.
    along = jnp.sum(jnp.where(h_bar == 0, 0, h_bar * a.h))
    return jax.tree.map(lambda leaf: jnp.where(along == 0, 0, leaf), _times(along, a.theta))
