"""Long short-term memory, with the equations of cuDNN and ``torch.nn.LSTM`` (one bias instead of two).

    z_t = W_x x_t + W_h h_{t-1} + b                         rows i, f, g, o
    i = σ(z_i)    f = σ(z_f)    g = tanh(z_g)    o = σ(z_o)
    c_t = f ∘ c_{t-1} + i ∘ g                               h_t = o ∘ tanh(c_t)

The state is the pair (h, c); g, the readout, sees h. Pullback, with (h_bar_t, c_bar_t) the cotangent of the pair:

 1. From h_t: o_bar = tanh(c_t) ∘ h_bar_t, and c_t hears both paths: c̃_bar = c_bar_t + o (1 - tanh²(c_t)) ∘ h_bar_t.
 2. From c_t: i_bar = g ∘ c̃_bar,  f_bar = c_{t-1} ∘ c̃_bar,  g_bar = i ∘ c̃_bar,  and to the past c_bar_{t-1} = f ∘ c̃_bar.
 3. Through the activations: z_bar = (i (1-i) ∘ i_bar,  f (1-f) ∘ f_bar,  (1-g²) ∘ g_bar,  o (1-o) ∘ o_bar).
 4. z is affine: W_x_bar = z_bar x_tᵀ, W_h_bar = z_bar h_{t-1}ᵀ, b_bar = z_bar,
    x_bar_t = W_xᵀ z_bar, h_bar_{t-1} = W_hᵀ z_bar.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxbptt import initializers
from jaxbptt._algebra import matvec, outer, total, vecmat, with_bias
from jaxbptt._errors import arguments, initialisation
from jaxbptt._factory import factory
from jaxbptt.cells import _errors
from jaxbptt.cells._from_split import matrix_cell, matrix_fits, zero_state
from jaxbptt.types import Array, Cell, TimeSplit


class LSTMParams(NamedTuple):
    """``W_x [4n, d]``, ``W_h [4n, n]``, ``b [4n]``; rows i, f, g, o.

    >>> theta_h = lstm().init(jax.random.key(0), input_size=3, hidden_size=5)
    >>> jax.tree.map(jnp.shape, theta_h)
    LSTMParams(W_x=(20, 3), W_h=(20, 5), b=(20,))
    """

    W_x: Array
    W_h: Array
    b: Array


class LSTMState(NamedTuple):
    """``h [*batch, n]``, what the readout and the next step's gates see; ``c [*batch, n]``, the cell's memory.

    >>> theta_h = lstm().init(jax.random.key(0), input_size=3, hidden_size=5)
    >>> jax.tree.map(jnp.shape, lstm().initial_state(theta_h, batch_shape=(4,)))
    LSTMState(h=(4, 5), c=(4, 5))
    """

    h: Array
    c: Array


class _Gates(NamedTuple):
    i: Array
    f: Array
    g: Array
    o: Array


def _project(theta_h, xs):
    return matvec(theta_h.W_x, xs)


def _gates(zs):
    z_i, z_f, z_g, z_o = jnp.split(zs, 4, axis=-1)
    return _Gates(jax.nn.sigmoid(z_i), jax.nn.sigmoid(z_f), jnp.tanh(z_g), jax.nn.sigmoid(z_o))


def _step(theta_h, u_t, h_tm1):
    gates_t = _gates(u_t + with_bias(matvec(theta_h.W_h, h_tm1.h), theta_h.b))
    i, f, g, o = gates_t
    c_t = f * h_tm1.c + i * g
    return LSTMState(h=o * jnp.tanh(c_t), c=c_t), gates_t


def _residuals(theta_h, us, hs_tm1, hs):
    return _gates(us + with_bias(matvec(theta_h.W_h, hs_tm1.h), theta_h.b))


def _step_vjp(theta_h, x_t, gates_t, h_tm1, h_t, delta_t):
    i, f, g, o = gates_t
    tanh_c = jnp.tanh(h_t.c)
    c_bar = delta_t.c + o * (1 - tanh_c * tanh_c) * delta_t.h
    z_bar_t = jnp.concatenate(
        [
            i * (1 - i) * g * c_bar,
            f * (1 - f) * h_tm1.c * c_bar,
            (1 - g * g) * i * c_bar,
            o * (1 - o) * tanh_c * delta_t.h,
        ],
        axis=-1,
    )
    return z_bar_t, LSTMState(h=vecmat(z_bar_t, theta_h.W_h), c=f * c_bar)


def _param_vjp(theta_h, xs, hs_tm1, hs, gates, z_bars):
    return LSTMParams(W_x=outer(z_bars, xs, theta_h.W_x), W_h=outer(z_bars, hs_tm1.h, theta_h.W_h), b=total(z_bars))


def _input_vjp(theta_h, xs, hs_tm1, hs, gates, z_bars):
    return vecmat(z_bars, theta_h.W_x)


_SPLIT = TimeSplit(_project, _step, _residuals, _step_vjp, _param_vjp, _input_vjp)


def _output(h_t):
    return h_t.h


@factory
def lstm(
    *,
    forget_bias: float = 1.0,
    W_x_init=initializers.glorot_uniform,
    W_h_init=initializers.orthogonal(),
    b_init=None,
) -> Cell:
    """Long short-term memory as in cuDNN and ``torch.nn.LSTM``.

    Parameters `LSTMParams` with rows i, f, g, o; state `LSTMState` (h, c), of which the readout sees ``h``.
    One step costs 8·n·(n+d) flops a sample forward and twice that backward. The pullback is written by hand
    and exact. To use weights of ``torch.nn.LSTM``, add its two biases.

    Args:
        forget_bias: the initial bias of the forget gate; the other biases start at 0. 1 is the usual choice
            (Jozefowicz, Zaremba and Sutskever 2015).
        W_x_init: ``(key, (n, d), dtype)``, called once a gate; Glorot uniform by default.
        W_h_init: ``(key, (n, n), dtype)``, called once a gate; random orthogonal by default.
        b_init: ``(key, (4, n), dtype)``, one row a gate (i, f, g, o), instead of `forget_bias`;
            `jaxbptt.initializers.chrono` for long memories.

    Returns:
        A `Cell`. Equal arguments give the same object.

    Raises:
        TypeError, ValueError: for a `forget_bias` that is no finite number, or is not 1 beside a `b_init`, where it
            would not be read.

    Source: Hochreiter and Schmidhuber (1997); the forget gate, Gers, Schmidhuber and Cummins (2000).

    >>> cell = lstm(forget_bias=2.0)
    >>> theta_h = cell.init(jax.random.key(0), input_size=3, hidden_size=5)
    >>> h_1 = cell.apply(theta_h, jnp.ones((2, 3)), cell.initial_state(theta_h, (2,)))
    >>> h_1.h.shape, h_1.c.shape, cell.output(h_1).shape
    ((2, 5), (2, 5), (2, 5))
    """
    arguments.numbers(forget_bias=forget_bias)
    if b_init is None:
        b_init = initializers.gate_bias(0.0, forget_bias, 0.0, 0.0)
    else:
        _errors.not_both("forget_bias", forget_bias != 1.0, "b_init", "put the forget gate's bias in row 1 of `b_init`")
    W_x_init, W_h_init, bias_init = initialisation.initializers(W_x_init=W_x_init, W_h_init=W_h_init, b_init=b_init)

    def init(key, input_size, hidden_size, dtype=jnp.float32):
        initialisation.init_arguments(key, dtype, input_size=input_size, hidden_size=hidden_size)
        key_x, key_h, key_b = jax.random.split(key, 3)
        return LSTMParams(
            W_x=initializers.per_gate(W_x_init, 4)(key_x, (hidden_size, input_size), dtype),
            W_h=initializers.per_gate(W_h_init, 4)(key_h, (hidden_size, hidden_size), dtype),
            b=bias_init(key_b, (4, hidden_size), dtype).reshape(-1),
        )

    check = functools.partial(matrix_fits, LSTMParams, 4)
    return matrix_cell(_SPLIT, init=init, initial_state=zero_state(LSTMParams, LSTMState), check=check, output=_output)
