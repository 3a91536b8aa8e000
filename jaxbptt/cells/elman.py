"""The Elman network, the simple recurrent unit of ``torch.nn.RNN`` and cuDNN.

    z_t = W_x x_t + W_h h_{t-1} + b        h_t = φ(z_t)

Pullback, with h_bar_t = ∂F/∂h_t:

 1. dh_t = φ'(z_t) ∘ dz_t, so z_bar_t = φ'(z_t) ∘ h_bar_t. For each φ here, φ' is a function of the value h_t,
    so nothing but the states need be kept:
    tanh: 1 - h²,   sigmoid: h (1 - h),   relu: 1 where h > 0, else 0 (the derivative at the corner is taken as 0).
 2. dz_t = dW_x x_t + W_x dx_t + dW_h h_{t-1} + W_h dh_{t-1} + db.
 3. Read off, as for the linear unit: W_x_bar = z_bar_t x_tᵀ, W_h_bar = z_bar_t h_{t-1}ᵀ, b_bar = z_bar_t,
    x_bar_t = W_xᵀ z_bar_t, h_bar_{t-1} = W_hᵀ z_bar_t; c_t = diag(φ'(z_t)) W_h.
"""

import functools
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp

from jaxbptt import initializers
from jaxbptt._algebra import matvec, outer, total, vecmat, with_bias
from jaxbptt._errors import arguments, initialisation
from jaxbptt._factory import factory
from jaxbptt.cells._activations import ACTIVATIONS
from jaxbptt.cells._from_split import matrix_cell, matrix_fits, zero_state
from jaxbptt.types import Array, Cell, TimeSplit


class ElmanParams(NamedTuple):
    """``W_x [n, d]``, ``W_h [n, n]``, ``b [n]``.

    >>> import jax, jaxbptt as jb
    >>> theta_h = jb.cells.elman().init(jax.random.key(0), input_size=3, hidden_size=5)
    >>> jax.tree.map(jnp.shape, theta_h)
    ElmanParams(W_x=(5, 3), W_h=(5, 5), b=(5,))
    """

    W_x: Array
    W_h: Array
    b: Array


def _project(theta_h, xs):
    return matvec(theta_h.W_x, xs)


def _residuals(theta_h, us, hs_tm1, hs):
    return ()  # φ' needs h_t alone


def _param_vjp(theta_h, xs, hs_tm1, hs, residuals, z_bars):
    return ElmanParams(W_x=outer(z_bars, xs, theta_h.W_x), W_h=outer(z_bars, hs_tm1, theta_h.W_h), b=total(z_bars))


def _input_vjp(theta_h, xs, hs_tm1, hs, residuals, z_bars):
    return vecmat(z_bars, theta_h.W_x)


@factory
def elman(
    activation: Literal["tanh", "relu", "sigmoid"] = "tanh",
    *,
    W_x_init=initializers.glorot_uniform,
    W_h_init=initializers.orthogonal(),
    b_init=initializers.zeros,
) -> Cell:
    """The Elman network, ``h_t = φ(W_x x_t + W_h h_{t-1} + b)``.

    Parameters `ElmanParams`; state ``h [*batch, n]``. One step costs 2·n·(n+d) flops a sample forward and
    twice that backward. The pullback is written by hand, exact, and needs no residual but the states.

    Args:
        activation: φ, one of ``"tanh"``, ``"relu"``, ``"sigmoid"``.
        W_x_init: ``(key, (n, d), dtype)``, Glorot uniform by default.
        W_h_init: ``(key, (n, n), dtype)``, a random orthogonal matrix by default; with relu,
            `jaxbptt.initializers.identity` gives the IRNN (Le, Jaitly and Hinton 2015).
        b_init: ``(key, (n,), dtype)``, zeros by default.

    Returns:
        A `Cell`. Equal arguments give the same object.

    Raises:
        ValueError: for another activation; bring your own with `jaxbptt.cells.from_step`.

    Source: Elman (1990), Finding structure in time, Cognitive Science 14.

    >>> cell = elman(activation="relu", W_h_init=initializers.identity())
    >>> theta_h = cell.init(jax.random.key(0), input_size=3, hidden_size=5)
    >>> cell.apply(theta_h, jnp.ones((2, 3)), cell.initial_state(theta_h, (2,))).shape
    (2, 5)
    """
    arguments.one_of("activation", activation, ACTIVATIONS, "bring your own f with `cells.from_step`")
    phi = ACTIVATIONS[activation]

    def step(theta_h, u_t, h_tm1):
        return phi.apply(u_t + with_bias(matvec(theta_h.W_h, h_tm1), theta_h.b)), ()

    def step_vjp(theta_h, x_t, residuals_t, h_tm1, h_t, delta_t):
        z_bar_t = phi.derivative(h_t) * delta_t
        return z_bar_t, vecmat(z_bar_t, theta_h.W_h)

    W_x_init, W_h_init, b_init = initialisation.initializers(W_x_init=W_x_init, W_h_init=W_h_init, b_init=b_init)

    def init(key, input_size, hidden_size, dtype=jnp.float32):
        initialisation.init_arguments(key, dtype, input_size=input_size, hidden_size=hidden_size)
        key_x, key_h, key_b = jax.random.split(key, 3)
        return ElmanParams(
            W_x=W_x_init(key_x, (hidden_size, input_size), dtype),
            W_h=W_h_init(key_h, (hidden_size, hidden_size), dtype),
            b=b_init(key_b, (hidden_size,), dtype),
        )

    split = TimeSplit(_project, step, _residuals, step_vjp, _param_vjp, _input_vjp)
    check = functools.partial(matrix_fits, ElmanParams, 1)
    return matrix_cell(split, init=init, initial_state=zero_state(ElmanParams), check=check)
