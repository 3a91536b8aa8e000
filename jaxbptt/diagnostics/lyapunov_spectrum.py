"""Lyapunov exponents: the mean rates at which a recursion stretches its state space.

With c_t = ∂f(x_t, h_{t-1}; θ_h)/∂h_{t-1} along a trajectory:

 1. λ_1 + … + λ_k is the mean rate of growth of the volume spanned by k directions.
 2. Multiplied out, k directions all turn to the first one. So they are made orthonormal again after every product:
        c_t Q_{t-1} = Q_t R_t,      Q_tᵀ Q_t = I,   R_t upper triangular.
    This changes no volume: c_T … c_1 Q_0 = Q_T R_T … R_1.
 3. The volume of the first i of them grows by the product of the first i diagonal numbers of R_t:
        λ_i = lim 1/T Σ_t log |R_t|_ii.
"""

import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxbptt import _axes
from jaxbptt._errors import arguments
from jaxbptt.diagnostics import _errors, _members
from jaxbptt.types import Array, Cell, PyTree

_BLOCKS = 10  # of time, for the standard error of a single sequence


class LyapunovSpectrum(NamedTuple):
    """Rates per step, natural logarithms.

    Attributes:
        exponents: ``[k]``, the mean over the batch, largest first but for the error of a finite horizon. ``[]`` from
            `largest_exponent`.
        standard_errors: like ``exponents``. From the spread over the sequences of the batch, or, for one sequence, over
            10 stretches of time; NaN where there is one number only.
        per_sequence: ``[*batch, k]``, of each sequence.

    >>> from jaxbptt import cells
    >>> theta_h = cells.LinearParams(W_x=jnp.ones((2, 1)), W_h=0.5 * jnp.eye(2))
    >>> found = lyapunov_spectrum(cells.linear(), theta_h, jnp.ones((20, 1)), jnp.zeros(2))
    >>> jnp.exp(found.exponents).round(4).tolist()
    [0.5, 0.5]
    """

    exponents: Array
    standard_errors: Array
    per_sequence: Array


def lyapunov_spectrum(
    cell: Cell,
    theta_h: PyTree,
    xs: PyTree,
    h_0: PyTree,
    *,
    k: int | None = None,
    transient: int = 0,
    every: int = 1,
    key: Array | None = None,
) -> LyapunovSpectrum:
    """The k largest Lyapunov exponents, ``λ_i = 1/T Σ_t log |R_t|_ii`` with ``c_t Q_{t-1} = Q_t R_t``.

    A long product of c's grows or shrinks as exp(λ_1 t), and the cotangents of BPTT with it. All N exponents add up to
    the mean of log |det c_t|, to rounding. Exact for the horizon, by tangents and QR; only k = N forms a matrix c_t.
    Time O(T·(k·(cost of f) + N·k²)). Any mode of differentiation; a singular c_t gives -inf and no gradient.

    Args:
        cell: f, any.
        theta_h: its parameters.
        xs: ``[T, *batch, d]``; a batch gives standard errors.
        h_0: ``[*batch, n]``.
        k: how many exponents, all N by default.
        transient: steps at the beginning that don't count, while h reaches its attractor and Q_t its directions.
        every: steps from one QR to the next; must divide T and `transient`. Larger values are faster, until the
            directions have collapsed to within rounding: ``every · (λ_1 - λ_k)`` should stay well under ln 1/ε, 36
            (16 in float32).
        key: of Q_0; a fixed draw by default.

    Returns:
        A `LyapunovSpectrum`.

    Raises:
        TypeError, ValueError: as `jaxbptt.unroll` does, and for a k, transient or `every` that doesn't fit.

    Source: Benettin, Galgani, Giorgilli and Strelcyn (1980), Lyapunov characteristic exponents, Meccanica 15; for
    recurrent networks Engelken, Wolf and Abbott (2023), Lyapunov spectra of chaotic recurrent neural networks.

    >>> from jaxbptt import cells
    >>> theta_h = cells.LinearParams(W_x=jnp.ones((2, 1)), W_h=jnp.diag(jnp.array([0.5, 2.0])))
    >>> found = lyapunov_spectrum(cells.linear(), theta_h, jnp.ones((60, 1)), jnp.zeros(2), transient=30)
    >>> jnp.exp(found.exponents).round(4).tolist()
    [2.0, 0.5]
    """
    return _spectrum(cell, theta_h, xs, h_0, k, transient, every, key, _qr)


def largest_exponent(
    cell: Cell,
    theta_h: PyTree,
    xs: PyTree,
    h_0: PyTree,
    *,
    transient: int = 0,
    every: int = 1,
    key: Array | None = None,
) -> LyapunovSpectrum:
    """λ_1 from one tangent, ``v_t = c_t v_{t-1} / ‖c_t v_{t-1}‖``: for states too large for a QR.

    Costs two to three times the recursion: a ``jvp`` of f with two tangents a step. The second tells what overflow has
    lost. Any mode of differentiation.

    Args:
        cell: f, any.
        theta_h: its parameters.
        xs: ``[T, *batch, d]``.
        h_0: ``[*batch, n]``.
        transient: steps at the beginning that don't count.
        every: steps from one normalisation to the next; must divide T and `transient`.
        key: of v_0; a fixed draw by default.

    Returns:
        A `LyapunovSpectrum` with scalars: ``exponents []``, ``standard_errors []``, ``per_sequence [*batch]``.

    Raises:
        TypeError, ValueError: as `lyapunov_spectrum` does.

    Source: Benettin, Galgani and Strelcyn (1976), Kolmogorov entropy and numerical experiments, eq. 8-10.

    >>> from jaxbptt import cells
    >>> theta_h = cells.LinearParams(W_x=jnp.ones((2, 1)), W_h=jnp.diag(jnp.array([0.5, 2.0])))
    >>> found = largest_exponent(cells.linear(), theta_h, jnp.ones((60, 1)), jnp.zeros(2), transient=30)
    >>> round(float(jnp.exp(found.exponents)), 4)
    2.0
    """
    found = _spectrum(cell, theta_h, xs, h_0, 1, transient, every, key, _normalise)
    return LyapunovSpectrum(*(leaf[..., 0] for leaf in found))


def kaplan_yorke_dimension(exponents: Array) -> Array:
    """``D = j + (λ_1 + … + λ_j) / |λ_{j+1}|``, j the largest number of exponents whose sum is not negative.

    Args:
        exponents: ``[..., k]``, in any order. With too few of them, so that no sum is negative, D = k: at least that.

    Returns:
        D, ``[...]``; 0 when λ_1 < 0, an attractor that is a point; NaN when an exponent is.

    Raises:
        ValueError: for no exponents.

    Source: Kaplan and Yorke (1979), Chaotic behavior of multidimensional difference equations.

    >>> kaplan_yorke_dimension(jnp.array([0.5, 0.0, -2.0])).item()
    2.25
    """
    exponents = jnp.asarray(exponents)
    arguments.count("exponents.shape[-1]", exponents.shape[-1] if exponents.ndim else 0)
    descending = -jnp.sort(-exponents, axis=-1)
    sums = jnp.cumsum(descending, axis=-1)
    j = jnp.sum(sums >= 0, axis=-1, keepdims=True)  # the sums rise, then fall: those not negative come first
    volume = jnp.where(j > 0, jnp.take_along_axis(sums, jnp.maximum(j - 1, 0), -1), jnp.zeros_like(sums[..., :1]))
    k = exponents.shape[-1]
    following = jnp.take_along_axis(descending, jnp.minimum(j, k - 1), -1)
    part = jnp.where(j < k, volume / jnp.where(j < k, jnp.abs(following), jnp.ones_like(volume)), 0 * volume)
    D = (j.astype(part.dtype) + part)[..., 0]
    return jnp.where(jnp.any(jnp.isnan(exponents), axis=-1), jnp.full_like(D, jnp.nan), D)


def _spectrum(cell, theta_h, xs, h_0, k, transient, every, key, renormalise):
    h_0, batch, N, dtype = _members.begin(cell, theta_h, xs, h_0)
    k = N if k is None else k
    _errors.exponents(k, N)
    _errors.stretches(_axes.time_axis("xs", xs), transient, every)
    V_0 = _members.directions(key, batch, N, k, dtype)
    return _statistics(_growths(cell, theta_h, xs, h_0, batch, V_0, every, renormalise)[transient // every :] / every)


def _growths(cell, theta_h, xs, h_0, batch, V_0, every, renormalise):
    """``[T/every, *batch, k]``: log growth of each direction over each stretch of `every` steps."""

    def step(carry, x_t):
        h_tm1, V_tm1 = carry
        V_t = _axes.over_members(functools.partial(_members.push, cell, theta_h), batch, x_t, h_tm1, V_tm1)
        return (cell.apply(theta_h, x_t, h_tm1), V_t), None

    def stretch(carry, xs):
        (h, V), _ = lax.scan(step, carry, xs)
        V, growth = _axes.over_members(renormalise, batch, V)
        return (h, V), growth

    M = _axes.time_axis("xs", xs) // every
    stretches = jax.tree.map(lambda leaf: jnp.reshape(leaf, (M, every, *jnp.shape(leaf)[1:])), xs)
    _, growths = lax.scan(stretch, (h_0, V_0), stretches)
    return growths


def _qr(V):
    Q, R = jnp.linalg.qr(V)
    return Q, jnp.log(jnp.abs(jnp.diagonal(R)))


def _normalise(V):
    v, length = _members.unit(V[:, 0])
    return v[:, None], jnp.log(length)[None]


def _statistics(rates):
    """From rates ``[M, *batch, k]``; independent sequences where there are several, else stretches of time.

    Means x_i over shares w_i of the whole have the mean Σ w_i x_i. Its variance, from their own scatter, is
    Σ w_i² (x_i - mean)² / (1 - Σ w_i²). For equal shares that is the usual one.
    """
    M, *batch, k = rates.shape
    per_sequence = jnp.mean(rates, axis=0)
    exponents = jnp.mean(per_sequence.reshape(-1, k), axis=0)
    samples, shares = per_sequence.reshape(-1, k), np.full(math.prod(batch), 1 / math.prod(batch))
    if len(samples) == 1:
        parts = np.array_split(np.arange(M), min(_BLOCKS, M))  # all of time: some are one longer than others
        samples = jnp.stack([jnp.mean(rates[part[0] : part[-1] + 1].reshape(-1, k), axis=0) for part in parts])
        shares = np.array([len(part) / M for part in parts])
    if len(samples) < 2:
        return LyapunovSpectrum(exponents, jnp.full_like(exponents, jnp.nan), per_sequence)
    off = (samples - exponents[None]) * jnp.asarray(shares[:, None], samples.dtype)
    errors = jnp.sqrt(jnp.sum(off * off, axis=0) / float(1 - np.sum(shares**2)))
    return LyapunovSpectrum(exponents, errors, per_sequence)
