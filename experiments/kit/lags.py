"""What a step k in the past still does: ‖∂h_t/∂h_k‖, and the terms of ∂F/∂W_x by lag, for cells with a ``W_x``.

∂h_t/∂h_k = c_t c_{t-1} … c_{k+1}          ∂F/∂W_x = Σ_k z_bar_{T-k} x_{T-k}ᵀ          F = ½‖h_T - y‖²
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import threadpoolctl  # scikit-learn brings it

import jaxbptt as jb
from jaxbptt import Cell
from jaxbptt.types import Array, PyTree


class Measured(NamedTuple):
    """One row for each trajectory.

    Attributes:
        norms: ``[R, T]``, ‖∂h_t/∂h_0‖₂ for lags 1 … T.
        contributions: ``[R, T]``, ‖z_bar_{T-k} x_{T-k}ᵀ‖ over ‖δ_T‖ ‖x_{T-k}‖ for lags k = 0 … T-1.
        sum_error: ``[R]``, of the sum over all lags against ``jax.grad`` of the plain scan, relative.
    """

    norms: np.ndarray
    contributions: np.ndarray
    sum_error: np.ndarray


def measure(cell: Cell, theta_h: PyTree, burn_in_xs: Array, xs: Array, y: Array) -> Measured:
    """Both quantities along R trajectories.

    Args:
        cell: f, with an array for a state and a ``W_x`` among its parameters.
        theta_h: its parameters.
        burn_in_xs: ``[S, R, d]``, read before h_0.
        xs: ``[T, R, d]``.
        y: ``[R, n]``, what h_T should have been.

    Returns:
        A `Measured`. Exact; O(R·T·n³) flops.
    """
    products, W_x_bars, scales, sum_error = _along(cell, theta_h, burn_in_xs, xs, y)
    contributions = frobenius(W_x_bars) / np.asarray(scales)
    return Measured(spectral(products), contributions[:, ::-1], np.asarray(sum_error))


@functools.partial(jax.jit, static_argnums=0)
def _along(cell, theta_h, burn_in_xs, xs, y):
    model = jb.rnn(cell, jb.readouts.identity())
    F = jb.objective(model, jb.losses.l2_loss, adjoint=jb.adjoints.autodiff())
    is_last = jnp.arange(len(xs)) == len(xs) - 1

    def one(burn_in_xs, xs, y):
        h_0, _ = jb.unroll(cell, theta_h, burn_in_xs, cell.initial_state(theta_h))
        products = jb.jacobians.product(cell, theta_h, xs, h_0)
        h_T, hs = jb.unroll(cell, theta_h, xs, h_0)
        delta_T = h_T - y
        h_bars = jnp.where(is_last[:, None], delta_T, 0.0)
        _, deltas = jb.jacobians.vjp(cell, theta_h, xs, h_0, h_bars)
        hs_tm1 = jnp.concatenate([h_0[None], hs[:-1]])
        theta_bars, _, _ = jax.vmap(functools.partial(cell.vjp, theta_h))(xs, hs_tm1, hs, deltas)
        theta = jb.Theta(theta_h, model.readout.init(jax.random.key(0), y.size, y.size))
        wanted = jax.grad(F)(theta, xs, jnp.broadcast_to(y, hs.shape), h_0, mask=is_last).h.W_x
        error = jnp.max(jnp.abs(jnp.sum(theta_bars.W_x, axis=0) - wanted)) / jnp.max(jnp.abs(wanted))
        return products, theta_bars.W_x, jnp.linalg.norm(delta_T) * jnp.linalg.norm(xs, axis=-1), error

    return jax.vmap(one, in_axes=(1, 1, 0))(burn_in_xs, xs, y)


class Powers(NamedTuple):
    """‖W_hᵏ‖₂ for k = 1 … T: ``norms`` through the cell, ``exact`` by powers of a matrix with the same norms."""

    norms: np.ndarray
    exact: np.ndarray

    @property
    def peak_lag(self) -> int:
        """The k at which ``norms`` is largest."""
        return int(self.norms.argmax()) + 1

    @property
    def peak_gain(self) -> float:
        """The largest of ``norms``."""
        return float(self.norms.max())


def non_normal_powers(key: Array, eigenvalue: float, strength: float, size: int, steps: int) -> Powers:
    """‖W_hᵏ‖ of W_h = V (λI + sS) Vᵀ through the linear cell, and ‖(λI + sS)ᵏ‖, the same without the basis V.

    Args:
        key: of V.
        eigenvalue: λ.
        strength: s.
        size: n.
        steps: the largest k.

    Returns:
        The `Powers`. In the basis V, W_h is rounded, and powers far along feel it: the farther from normal, the sooner.
    """
    cell = jb.cells.linear(W_h_init=jb.initializers.non_normal(eigenvalue, strength))
    theta_h = cell.init(key, 1, size, jnp.float64)
    product = jax.jit(functools.partial(jb.jacobians.product, cell))
    jordan = eigenvalue * np.eye(size) + strength * np.eye(size, k=1)
    power, exact = np.eye(size), []
    for _ in range(steps):
        power = jordan @ power
        exact.append(spectral(power))
    return Powers(spectral(product(theta_h, jnp.zeros((steps, 1)), jnp.zeros(size))), np.array(exact))


def spectral(matrices: Array | np.ndarray) -> np.ndarray:
    """‖·‖₂, the largest singular value, of the last two axes.

    In one thread: beside another process, the threads of BLAS wait for each other by spinning, up to 80 times as long.
    """
    with threadpoolctl.threadpool_limits(1, user_api="blas"):
        return np.linalg.norm(np.asarray(matrices), ord=2, axis=(-2, -1))


def frobenius(matrices: Array | np.ndarray) -> np.ndarray:
    """‖·‖_F of the last two axes, scaled first: the square of 1e-181 is 0 in float64.

    >>> float(frobenius(np.full((2, 2), 1e-181)))
    2e-181
    """
    matrices = np.asarray(matrices)
    largest = np.abs(matrices).max(axis=(-2, -1), keepdims=True)
    scaled = matrices / np.where(largest == 0, 1, largest)
    return largest[..., 0, 0] * np.linalg.norm(scaled, axis=(-2, -1))
