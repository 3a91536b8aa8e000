"""A cell to copy: a unit that oscillates.

    z_t = W_x x_t + W_h h_{t-1} + b        h_t = sin(z_t)

Pullback, with h_bar_t = ∂F/∂h_t:

 1. dh_t = cos(z_t) ∘ dz_t, so z_bar_t = cos(z_t) ∘ h_bar_t. cos(z_t) is no function of h_t: it is the residual.
 2. dz_t = dW_x x_t + W_x dx_t + dW_h h_{t-1} + W_h dh_{t-1} + db.
 3. Read off: W_x_bar = z_bar_t x_tᵀ, W_h_bar = z_bar_t h_{t-1}ᵀ, b_bar = z_bar_t, x_bar_t = W_xᵀ z_bar_t,
    h_bar_{t-1} = W_hᵀ z_bar_t; c_t = diag(cos(z_t)) W_h.

To add one of yours:

* Copy this file to ``jaxbptt/cells/``. The equation and the numbered derivation of its pullback open it.
* Write six functions: `project` (the products that don't read h_{t-1}), `step` (the rest of f, and its residuals),
  `residuals` (the same, computed again from states), `step_vjp` (z_bar_t and c_tᵀ delta_t, nothing of the size of a
  weight), `param_vjp` and `input_vjp` (sums over time). ``jaxbptt/_slots.py`` says what each promises.
* Make the cell by `matrix_cell` (all products from `_algebra`) or `cell_from_split`. The factory's docstring has cost,
  exactness and an example. Its names go into ``jaxbptt/cells/__init__.py``.
* Write the step once more in NumPy in ``tests/oracles.py``, and a line in `CELLS` of ``tests/cases.py``: every law is
  then tested. What it refuses gets a row each in ``tests/errors/``. Add a line to CHANGELOG.md.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxbptt import initializers
from jaxbptt._algebra import matvec, outer, total, vecmat, with_bias
from jaxbptt._errors import initialisation
from jaxbptt._factory import factory
from jaxbptt.cells._from_split import matrix_cell, matrix_fits, zero_state
from jaxbptt.types import Array, Cell, TimeSplit


class SineParams(NamedTuple):
    """``W_x [n, d]``, ``W_h [n, n]``, ``b [n]``."""

    W_x: Array
    W_h: Array
    b: Array


def _project(theta_h, xs):
    return matvec(theta_h.W_x, xs)  # all steps at once


def _z(theta_h, u, h_tm1):
    return with_bias(u + matvec(theta_h.W_h, h_tm1), theta_h.b)


def _step(theta_h, u_t, h_tm1):
    z_t = _z(theta_h, u_t, h_tm1)
    return jnp.sin(z_t), jnp.cos(z_t)


def _residuals(theta_h, us, hs_tm1, hs):
    return jnp.cos(_z(theta_h, us, hs_tm1))


def _step_vjp(theta_h, x_t, residuals_t, h_tm1, h_t, delta_t):
    z_bar_t = residuals_t * delta_t  # 1.
    return z_bar_t, vecmat(z_bar_t, theta_h.W_h)  # 3.


def _param_vjp(theta_h, xs, hs_tm1, hs, residuals, z_bars):
    return SineParams(W_x=outer(z_bars, xs, theta_h.W_x), W_h=outer(z_bars, hs_tm1, theta_h.W_h), b=total(z_bars))  # 3.


def _input_vjp(theta_h, xs, hs_tm1, hs, residuals, z_bars):
    return vecmat(z_bars, theta_h.W_x)  # 3.


_SPLIT = TimeSplit(_project, _step, _residuals, _step_vjp, _param_vjp, _input_vjp)


def _init(key, input_size, hidden_size, dtype=jnp.float32):
    initialisation.init_arguments(key, dtype, input_size=input_size, hidden_size=hidden_size)
    key_x, key_h = jax.random.split(key)
    return SineParams(
        W_x=initializers.glorot_uniform(key_x, (hidden_size, input_size), dtype),
        W_h=initializers.orthogonal()(key_h, (hidden_size, hidden_size), dtype),
        b=jnp.zeros(hidden_size, dtype),
    )


@factory
def sine() -> Cell:
    """The unit ``h_t = sin(W_x x_t + W_h h_{t-1} + b)``.

    Parameters `SineParams`; state ``h [*batch, n]``. The pullback is written by hand, exact, and keeps z_t's cosine.

    Returns:
        A `Cell`. The same object at each call.

    >>> cell = sine()
    >>> theta_h = cell.init(jax.random.key(0), input_size=3, hidden_size=5)
    >>> cell.apply(theta_h, jnp.ones((2, 3)), cell.initial_state(theta_h, (2,))).shape
    (2, 5)
    """
    check = functools.partial(matrix_fits, SineParams, 1)
    return matrix_cell(_SPLIT, init=_init, initial_state=zero_state(SineParams), check=check)
