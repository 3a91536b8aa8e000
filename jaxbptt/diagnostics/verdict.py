"""Vanishing, exploding or stable: a plain answer for one horizon, and the bound that needs no trajectory."""

import math
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from jaxbptt import _axes
from jaxbptt._algebra import wide
from jaxbptt.diagnostics import _errors
from jaxbptt.diagnostics.power_iteration import product_power_iteration
from jaxbptt.types import Array, Cell, PyTree

_LOG_TINY = math.log(np.finfo(np.float32).tiny)
_LOG_MAX = math.log(np.finfo(np.float32).max)
_LOG_HALF_ULP = math.log(np.finfo(np.float32).eps / 2)


class Verdict(NamedTuple):
    """Of each sequence.

    Attributes:
        sign: ``[*batch]``, -1 vanishing, 0 stable, 1 exploding. It is 2, and the rest NaN, where the norm is NaN: a
            state overflowed (float64, or fewer steps, may tell), or something was NaN before.
        log_norm: ``[*batch]``, log ‖∂h_T/∂h_0‖₂.
        rate: ``[*batch]``, that for one step, ``log_norm / T``: negative where the norm shrinks.
        float32_horizon: ``[*batch]``, the steps after which, at this rate, the norm leaves the range of float32 (below
            2⁻¹²⁶ or above 2¹²⁸); inf when stable.
        float32_sum_horizon: ``[*batch]``, the steps after which, at this rate, a contribution is lost in a float32 sum
            with one of lag 0 (below 2⁻²⁴); inf unless vanishing.

    >>> from jaxbptt import cells
    >>> theta_h = cells.LinearParams(W_x=jnp.ones((2, 1)), W_h=0.5 * jnp.eye(2))
    >>> verdict(cells.linear(), theta_h, jnp.ones((9, 1)), jnp.zeros(2)).sign.item()  # vanishing
    -1
    """

    sign: Array
    log_norm: Array
    rate: Array
    float32_horizon: Array
    float32_sum_horizon: Array

    @property
    def words(self) -> np.ndarray:
        """``[*batch]`` of "vanishing", "stable", "exploding", "no number"; on the host, so not under ``jax.jit``."""
        return np.array(["vanishing", "stable", "exploding", "no number"])[np.asarray(self.sign) + 1]


def verdict(
    cell: Cell,
    theta_h: PyTree,
    xs: PyTree,
    h_0: PyTree,
    *,
    factor: float = 10.0,
    iterations: int = 20,
    key: Array | None = None,
) -> Verdict:
    """Vanishing when ``‖∂h_T/∂h_0‖ < 1/factor``, exploding when ``> factor``, else stable over this horizon.

    A statement about the T steps of `xs` and no others. The norm comes from `product_power_iteration`: no matrix, any
    horizon, from below.

    Args:
        cell: f, any.
        theta_h: its parameters.
        xs: ``[T, *batch, d]``.
        h_0: ``[*batch, n]``.
        factor: more than 1.
        iterations: of the norm.
        key: of its first vector; a fixed draw by default.

    Returns:
        A `Verdict`.

    Raises:
        TypeError, ValueError: as `jaxbptt.unroll` does, and for a factor that is no number above 1.

    >>> from jaxbptt import cells
    >>> theta_h = cells.LinearParams(W_x=jnp.ones((2, 1)), W_h=0.5 * jnp.eye(2))
    >>> found = verdict(cells.linear(), theta_h, jnp.ones((50, 1)), jnp.zeros(2))
    >>> str(found.words), round(float(found.rate), 4)  # log 0.5
    ('vanishing', -0.6931)
    >>> round(float(found.float32_horizon)), round(float(found.float32_sum_horizon))
    (126, 24)
    """
    _errors.more_than("factor", factor, 1)
    T = _axes.time_axis("xs", xs)
    log_norm = product_power_iteration(cell, theta_h, xs, h_0, iterations=iterations, key=key).log_norm
    far = math.log(factor)
    sign = (log_norm > far).astype(jnp.int8) - (log_norm < -far).astype(jnp.int8)
    sign = jnp.where(jnp.isnan(log_norm), jnp.int8(2), sign)
    rate = log_norm / T
    moving = jnp.where(sign == 0, jnp.ones_like(rate), rate)
    reach = jnp.where(rate < 0, _LOG_TINY, _LOG_MAX).astype(rate.dtype)
    never = jnp.full_like(rate, jnp.inf)
    horizon = jnp.where(sign == 0, never, reach / moving)
    sum_horizon = jnp.where((sign < 0) | (sign == 2), _LOG_HALF_ULP / moving, never)
    return Verdict(sign, log_norm, rate, horizon, sum_horizon)


class JacobianBound(NamedTuple):
    """``‖∂h_t/∂h_k‖ ≤ eta^(t-k)``.

    Attributes:
        sigma: σ_1(W_h).
        eta: γ σ_1.
        vanishing_is_certain: eta < 1, whatever the inputs.
        exploding_is_possible: eta > 1, which is necessary for it and not sufficient; or NaN, which excludes nothing.
        float32_horizon: the lag from which on the bound is below float32's 2⁻¹²⁶; inf when eta ≥ 1.

    >>> jacobian_bound(jnp.eye(3), gamma=2.0).exploding_is_possible.item()
    True
    """

    sigma: Array
    eta: Array
    vanishing_is_certain: Array
    exploding_is_possible: Array
    float32_horizon: Array


def jacobian_bound(W_h: Array, gamma: float = 1.0) -> JacobianBound:
    """``‖c_t‖ = ‖diag(φ'(z_t)) W_h‖ ≤ γ σ_1(W_h)`` for ``h_t = φ(W_x x_t + W_h h_{t-1} + b)``.

    Products of t-k such factors are at most (γ σ_1)^(t-k): below 1 they vanish, whatever the inputs.

    Args:
        W_h: ``[n, n]``, or a stack ``[…, n, n]``.
        gamma: γ = sup |φ'|: 1 for tanh, relu and the linear unit, 1/4 for the sigmoid.

    Returns:
        A `JacobianBound`, certain for every trajectory; one SVD.

    Raises:
        ValueError: for a W_h that is not square, or a γ that is not positive.

    Source: Pascanu, Mikolov and Bengio (2013), On the difficulty of training recurrent neural networks, eq. 6-7.

    >>> bound = jacobian_bound(2.0 * jnp.eye(3), gamma=0.25)
    >>> bound.eta.item(), bound.vanishing_is_certain.item(), round(bound.float32_horizon.item())
    (0.5, True, 126)
    """
    _errors.square_matrix("W_h", W_h)
    _errors.more_than("gamma", gamma, 0)
    W_h = jnp.asarray(W_h)
    sigma = jnp.linalg.svd(W_h.astype(wide(W_h.dtype)), compute_uv=False)[..., 0]
    eta = gamma * sigma
    certain = eta < 1
    horizon = _LOG_TINY / jnp.log(jnp.where(certain, eta, jnp.full_like(eta, 0.5)))
    elsewhere = jnp.where(jnp.isnan(eta), eta, jnp.full_like(eta, jnp.inf))
    return JacobianBound(sigma, eta, certain, ~(eta <= 1), jnp.where(certain, horizon, elsewhere))
