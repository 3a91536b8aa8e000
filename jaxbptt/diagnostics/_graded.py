"""A long product of matrices as Q·diag(exp d)·U, whose numbers range further than any float does.

P_t = c_t P_{t-1} with P = Q D U Q_0ᵀ. Q is orthogonal, D = diag(exp d) is kept as logarithms, U has rows of size 1.

 1. c_t Q = Q' R (QR), so c_t P = Q' R D U Q_0ᵀ.
 2. Row i of R D is exp(s_i) times a row of size 1, s_i = max_j (log |R_ij| + d_j). Q's columns turn to the directions
    that grow. d soon falls along the rows and s_i ≈ log |R_ii| + d_i: nothing overflows, U stays far from singular.
 3. That row times U is the new row of U, once its size has gone into d.

One-sided Jacobi rotations of the rows exp(d_i) U_i give the singular values of D U, each to its own digits. Two rows
a, τb of sizes 1 : τ ≤ 1, with c = aᵀb, are rotated to orthogonal ones by tan φ = τw:
    w = -2c / (1 - τ² + √((1 - τ²)² + 4τ²c²)),      a ← cos φ (a - τ²w b),      b ← cos φ (b + w a).
τ² may well be 0: scales enter through their ratio only.

Source: Demmel and Veselić (1992), Jacobi's method is more accurate than QR; the graded product, Loh et al. (1992), in
quantum Monte Carlo.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxbptt.diagnostics._members import unit

_SWEEPS = 10  # convergence is quadratic; U is nearly diagonal after a QR and wants fewer still


class Graded(NamedTuple):
    """``Q [N, N]``, ``d [N]``, ``U [N, N]``."""

    Q: jax.Array
    d: jax.Array
    U: jax.Array


def multiply(c, product):
    """The product with c to its left: rules 1 to 3."""
    Q, R = jnp.linalg.qr(c @ product.Q)
    exponents = jnp.log(jnp.abs(R)) + jnp.broadcast_to(product.d, R.shape)
    s = jnp.max(exponents, axis=1)
    s = jnp.where(jnp.isfinite(s), s, jnp.zeros_like(s))  # a row of zeros
    rows = (jnp.sign(R) * jnp.exp(exponents - jnp.broadcast_to(s[:, None], R.shape))) @ product.U
    U, sizes = jax.vmap(unit)(rows)
    return Graded(Q, s + jnp.log(sizes), U)


def log_singular_values(product):
    """``[N]``: log σ_1 ≥ log σ_2 ≥ … of the product."""
    N = len(product.d)
    if N == 1:
        return product.d
    s, rows = product.d, product.U
    if N % 2:  # a row of zeros, so that they go in pairs
        s = jnp.concatenate([s, jnp.full((1,), -jnp.inf, s.dtype)])
        rows = jnp.concatenate([rows, jnp.zeros((1, N), rows.dtype)])
    schedule = jnp.asarray(_round_robin(len(s)))

    def sweep(_, carry):
        return lax.scan(lambda carry, pairs: (_rotate(carry, pairs), None), carry, schedule)[0]

    s, _ = lax.fori_loop(0, _SWEEPS, sweep, (s, rows))
    return -jnp.sort(-s)[:N]


def log_eigenvalues(product, Q_0):
    """``[N]``, complex: log μ of the product; those below rounding of the largest are not resolved.

    Q D U Q_0ᵀ is similar to D^½ (U Q_0ᵀ Q) D^½, graded from the top left: what LAPACK resolves best.
    """
    d, largest = product.d, jnp.max(product.d)
    scales = jnp.exp((d - jnp.broadcast_to(jnp.where(jnp.isfinite(largest), largest, 0), d.shape)) / 2)
    similar = scales[:, None] * (product.U @ (Q_0.T @ product.Q)) * scales[None, :]
    mu = jnp.linalg.eigvals(similar)
    return jnp.log(mu) + largest.astype(mu.dtype)


def _rotate(carry, pairs):
    s, rows = carry
    i, j = pairs
    larger = s[i] >= s[j]
    i, j = jnp.where(larger, i, j), jnp.where(larger, j, i)
    a, b = rows[i], rows[j]
    tau = jnp.where(s[j] > -jnp.inf, jnp.exp(s[j] - s[i]), 0)
    c = jnp.sum(a * b, axis=1)
    gap = (1 - tau) * (1 + tau)
    below = gap + jnp.hypot(gap, 2 * tau * c)
    w = jnp.where(below > 0, -2 * c / jnp.where(below > 0, below, 1), 0)
    cos = lax.rsqrt(1 + jnp.square(tau * w))
    cos, w, tau = cos[:, None], w[:, None], tau[:, None]
    a, b = cos * (a - tau * tau * w * b), cos * (b + w * a)
    (a, a_size), (b, b_size) = jax.vmap(unit)(a), jax.vmap(unit)(b)
    s = s.at[i].add(jnp.log(a_size)).at[j].add(jnp.log(b_size))
    return s, rows.at[i].set(a).at[j].set(b)


def _round_robin(N):
    """N - 1 rounds of N/2 disjoint pairs, each pair once, ``[N - 1, 2, N/2]``: one player sits, the others go round."""
    players = np.arange(N)
    rounds = []
    for _ in range(N - 1):
        rounds.append(np.stack([players[: N // 2], players[: N // 2 - 1 : -1]]))
        players = np.concatenate([players[:1], players[-1:], players[1:-1]])
    return np.stack(rounds)
