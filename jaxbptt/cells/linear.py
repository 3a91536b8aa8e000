"""The linear recurrent unit, the one whose gradient can be written down in full (`jaxbptt.closed_form`).

    h_t = W_x x_t + W_h h_{t-1}

Pullback, with h_bar_t = ∂F/∂h_t:

 1. dh_t = dW_x x_t + W_x dx_t + dW_h h_{t-1} + W_h dh_{t-1}.
 2. ⟨h_bar_t, dh_t⟩ = ⟨h_bar_t x_tᵀ, dW_x⟩ + ⟨W_xᵀ h_bar_t, dx_t⟩ + ⟨h_bar_t h_{t-1}ᵀ, dW_h⟩ + ⟨W_hᵀ h_bar_t, dh_{t-1}⟩.
 3. Read off: W_x_bar = h_bar_t x_tᵀ, W_h_bar = h_bar_t h_{t-1}ᵀ, x_bar_t = W_xᵀ h_bar_t, h_bar_{t-1} = W_hᵀ h_bar_t,
    so b_t has the rows x_t and h_{t-1}, and c_t = W_h at every t.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxbptt import initializers
from jaxbptt._algebra import matvec, outer, vecmat
from jaxbptt._errors import initialisation
from jaxbptt._factory import factory
from jaxbptt.cells._from_split import matrix_cell, matrix_fits, zero_state
from jaxbptt.types import Array, Cell, TimeSplit


class LinearParams(NamedTuple):
    """``W_x [n, d]``, ``W_h [n, n]``.

    >>> theta_h = LinearParams(W_x=jnp.ones((2, 1)), W_h=jnp.eye(2))
    >>> linear().apply(theta_h, jnp.array([3.0]), jnp.array([1.0, 2.0])).tolist()
    [4.0, 5.0]
    """

    W_x: Array
    W_h: Array


def _project(theta_h, xs):
    return matvec(theta_h.W_x, xs)


def _step(theta_h, u_t, h_tm1):
    return u_t + matvec(theta_h.W_h, h_tm1), ()


def _residuals(theta_h, us, hs_tm1, hs):
    return ()


def _step_vjp(theta_h, x_t, residuals_t, h_tm1, h_t, delta_t):
    return delta_t, vecmat(delta_t, theta_h.W_h)


def _param_vjp(theta_h, xs, hs_tm1, hs, residuals, deltas):
    return LinearParams(W_x=outer(deltas, xs, theta_h.W_x), W_h=outer(deltas, hs_tm1, theta_h.W_h))


def _input_vjp(theta_h, xs, hs_tm1, hs, residuals, deltas):
    return vecmat(deltas, theta_h.W_x)


_SPLIT = TimeSplit(_project, _step, _residuals, _step_vjp, _param_vjp, _input_vjp, affine=True)


@factory
def linear(W_x_init=initializers.glorot_uniform, W_h_init=initializers.orthogonal()) -> Cell:
    """The linear recurrent unit, ``h_t = W_x x_t + W_h h_{t-1}``.

    Parameters `LinearParams`; state ``h [*batch, n]``. One step costs 2·n·(n+d) flops a sample forward
    and twice that backward. The pullback is written by hand and exact.

    Args:
        W_x_init: ``(key, (n, d), dtype)``, Glorot uniform by default.
        W_h_init: ``(key, (n, n), dtype)``, a random orthogonal matrix by default.

    Returns:
        A `Cell`. Equal arguments give the same object.

    Raises:
        TypeError: for an initialiser that can't be called so; ``init`` and ``apply`` say what doesn't fit.

    >>> cell = linear()
    >>> theta_h = cell.init(jax.random.key(0), input_size=3, hidden_size=5)
    >>> cell.apply(theta_h, jnp.ones((2, 3)), cell.initial_state(theta_h, (2,))).shape
    (2, 5)
    """
    W_x_init, W_h_init = initialisation.initializers(W_x_init=W_x_init, W_h_init=W_h_init)

    def init(key, input_size, hidden_size, dtype=jnp.float32):
        initialisation.init_arguments(key, dtype, input_size=input_size, hidden_size=hidden_size)
        key_x, key_h = jax.random.split(key)
        return LinearParams(
            W_x=W_x_init(key_x, (hidden_size, input_size), dtype),
            W_h=W_h_init(key_h, (hidden_size, hidden_size), dtype),
        )

    check = functools.partial(matrix_fits, LinearParams, 1)
    return matrix_cell(_SPLIT, init=init, initial_state=zero_state(LinearParams), check=check)
