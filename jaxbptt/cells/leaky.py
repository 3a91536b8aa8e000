"""The rate network of neuroscience: units that leak, and read each other's rates.

    τ dh/dt = -h + W_h φ(h) + W_x x + b,  by Euler steps of dt:
    r_{t-1} = φ(h_{t-1}),   z_t = W_x x_t + W_h r_{t-1} + b,   h_t = (1 - α) ∘ h_{t-1} + α ∘ z_t,   α = dt/τ

Pullback, with h_bar_t = ∂F/∂h_t:

 1. dh_t = (1 - α) ∘ dh_{t-1} + α ∘ dz_t, so z_bar_t = α ∘ h_bar_t.
 2. dz_t = dW_x x_t + W_x dx_t + dW_h r_{t-1} + W_h dr_{t-1} + db,   dr_{t-1} = φ'(h_{t-1}) ∘ dh_{t-1}.
 3. Read off: W_x_bar = z_bar_t x_tᵀ, W_h_bar = z_bar_t r_{t-1}ᵀ, b_bar = z_bar_t, x_bar_t = W_xᵀ z_bar_t,
    h_bar_{t-1} = (1 - α) ∘ h_bar_t + φ'(h_{t-1}) ∘ W_hᵀ z_bar_t; c_t = diag(1 - α) + diag(α) W_h diag(φ'(h_{t-1})).
 4. Learned, α = σ(a): dh_t = dα ∘ (z_t - h_{t-1}), dα = α ∘ (1 - α) ∘ da; a_bar = (1 - α) ∘ z_bar_t ∘ (z_t - h_{t-1}).
"""

import functools
import math
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp

from jaxbptt import initializers
from jaxbptt._algebra import matvec, outer, total, vecmat, with_bias
from jaxbptt._errors import arguments, initialisation
from jaxbptt._factory import factory
from jaxbptt.cells import _errors
from jaxbptt.cells._activations import ACTIVATIONS
from jaxbptt.cells._from_split import matrix_cell, matrix_fits, zero_state
from jaxbptt.types import Array, Cell, TimeSplit


class LeakyParams(NamedTuple):
    """``W_x [n, d]``, ``W_h [n, n]``, ``b [n]``.

    >>> import jax, jaxbptt as jb
    >>> theta_h = jb.cells.leaky().init(jax.random.key(0), input_size=3, hidden_size=5)
    >>> jax.tree.map(jnp.shape, theta_h)
    LeakyParams(W_x=(5, 3), W_h=(5, 5), b=(5,))
    """

    W_x: Array
    W_h: Array
    b: Array


class LearnedLeakyParams(NamedTuple):
    """``W_x [n, d]``, ``W_h [n, n]``, ``b [n]``, and ``a [n]``, of which α = σ(a).

    >>> import jax, jaxbptt as jb
    >>> theta_h = jb.cells.leaky(alpha="learned").init(jax.random.key(0), input_size=3, hidden_size=5)
    >>> round(float(jax.nn.sigmoid(theta_h.a[0])), 6)
    0.1
    """

    W_x: Array
    W_h: Array
    b: Array
    a: Array


def _a_tenth(key, shape, dtype=jnp.float32):
    return jnp.full(shape, math.log(0.1 / 0.9), dtype)


@factory
def leaky(
    activation: Literal["tanh", "relu", "sigmoid"] = "tanh",
    alpha: float | tuple[float, ...] | Literal["learned"] = 0.1,
    *,
    W_x_init=initializers.glorot_uniform,
    W_h_init=initializers.orthogonal(),
    b_init=initializers.zeros,
    a_init=_a_tenth,
) -> Cell:
    """A leaky rate network, ``h_t = (1 - α) ∘ h_{t-1} + α ∘ (W_x x_t + W_h φ(h_{t-1}) + b)``.

    Parameters `LeakyParams` or `LearnedLeakyParams`; state ``h [*batch, n]``. The readout sees the rates φ(h). A step
    costs 2·n·(n+d) flops a sample forward and twice that backward. The pullback is written by hand, exact, and needs no
    residual, or z_t - h_{t-1} where α is learned.

    Args:
        activation: φ, one of ``"tanh"``, ``"relu"``, ``"sigmoid"``.
        alpha: α = dt/τ, in (0, 1]: one for all units, or a tuple of n. ``"learned"``: α = σ(a), one a unit.
        W_x_init: ``(key, (n, d), dtype)``, Glorot uniform by default.
        W_h_init: ``(key, (n, n), dtype)``, a random orthogonal matrix by default.
        b_init: ``(key, (n,), dtype)``, zeros by default.
        a_init: ``(key, (n,), dtype)``, α = 0.1 by default; read where α is learned.

    Returns:
        A `Cell`. Equal arguments give the same object.

    Raises:
        TypeError, ValueError: for another activation, or an alpha beyond (0, 1].

    Source: Murray (2019), Local online learning in recurrent networks with random feedback, has it as a model of
    neurons, with φ around the weighted sum.

    >>> cell = leaky(alpha=0.5)
    >>> theta_h = LeakyParams(W_x=jnp.eye(1), W_h=jnp.eye(1), b=jnp.zeros(1))
    >>> cell.apply(theta_h, jnp.ones(1), jnp.zeros(1)).tolist()
    [0.5]
    """
    arguments.one_of("activation", activation, ACTIVATIONS, "bring your own f with `cells.from_step`")
    learned = alpha == "learned"
    if not learned:
        _errors.shares("alpha", alpha)
    phi, params = ACTIVATIONS[activation], LearnedLeakyParams if learned else LeakyParams
    pieces: Any = (_project, _step, _residuals, _step_vjp, _param_vjp)
    project, step, residuals, step_vjp, param_vjp = (functools.partial(piece, phi, alpha) for piece in pieces)
    split = TimeSplit(project, step, residuals, step_vjp, param_vjp, _input_vjp)
    initial = initialisation.initializers(W_x_init=W_x_init, W_h_init=W_h_init, b_init=b_init, a_init=a_init)
    return matrix_cell(
        split,
        init=functools.partial(_init, params, initial),
        initial_state=zero_state(params),
        check=functools.partial(_check, params, alpha),
        output=phi.apply,
    )


def _init(params, initial, key, input_size, hidden_size, dtype=jnp.float32):
    initialisation.init_arguments(key, dtype, input_size=input_size, hidden_size=hidden_size)
    shapes = ((hidden_size, input_size), (hidden_size, hidden_size), (hidden_size,), (hidden_size,))
    keys = jax.random.split(key, 3)  # a first value of α is no matter of chance
    drawn = zip(initial, (*keys, keys[-1]), shapes, strict=True)
    return params(*[make(k, shape, dtype) for make, k, shape in drawn][: len(params._fields)])


def _check(params, alpha, theta_h, xs, h_0):
    matrix_fits(params, 1, theta_h, xs, h_0)
    if isinstance(alpha, tuple) and len(alpha) != theta_h.b.shape[0]:
        _errors.one_each("alpha", len(alpha), theta_h.b.shape[0])


def _project(phi, alpha, theta_h, xs):
    return matvec(theta_h.W_x, xs)


def _step(phi, alpha, theta_h, u_t, h_tm1):
    z_t, share = _drive(phi, theta_h, u_t, h_tm1), _share(alpha, theta_h, h_tm1)
    return (1 - share) * h_tm1 + share * z_t, z_t - h_tm1 if alpha == "learned" else ()


def _drive(phi, theta_h, u_t, h_tm1):
    return u_t + with_bias(matvec(theta_h.W_h, phi.apply(h_tm1)), theta_h.b)


def _residuals(phi, alpha, theta_h, us, hs_tm1, hs):
    return _drive(phi, theta_h, us, hs_tm1) - hs_tm1 if alpha == "learned" else ()  # φ' needs h_{t-1} alone


def _step_vjp(phi, alpha, theta_h, x_t, way_t, h_tm1, h_t, delta_t):
    share = _share(alpha, theta_h, h_tm1)
    z_bar_t = share * delta_t
    return z_bar_t, (1 - share) * delta_t + phi.derivative(phi.apply(h_tm1)) * vecmat(z_bar_t, theta_h.W_h)


def _param_vjp(phi, alpha, theta_h, xs, hs_tm1, hs, ways, z_bars):
    bars = LeakyParams(
        W_x=outer(z_bars, xs, theta_h.W_x), W_h=outer(z_bars, phi.apply(hs_tm1), theta_h.W_h), b=total(z_bars)
    )
    if alpha != "learned":
        return bars
    a_bar = total((1 - _share(alpha, theta_h, z_bars)) * z_bars * ways)
    return LearnedLeakyParams(*bars, a=a_bar)


def _input_vjp(theta_h, xs, hs_tm1, hs, residuals, z_bars):
    return vecmat(z_bars, theta_h.W_x)


def _share(alpha, theta_h, h):
    share = jax.nn.sigmoid(theta_h.a) if alpha == "learned" else jnp.asarray(alpha, h.dtype)
    return jnp.broadcast_to(share, h.shape)
