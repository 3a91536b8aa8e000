"""The gated recurrent unit, with the equations of cuDNN and ``torch.nn.GRU``.

    u_t = W_x x_t + b_x            v_t = W_h h_{t-1} + b_h            rows r, z, n of each
    r_t = σ(u_r + v_r)             z_t = σ(u_z + v_z)
    n_t = tanh(u_n + r_t ∘ v_n)    h_t = (1 - z_t) ∘ n_t + z_t ∘ h_{t-1}

(The reset gate acts on W_h h_{t-1} + b_h, not on h_{t-1}: one product a step, and the reason for two biases. The other
GRU, ``gru(reset="before")``, is in `_gru_reset_before`. What is projected before the steps is W_x x_t alone.)

Pullback, with h_bar_t = ∂F/∂h_t; a bar with a hat, r̂_bar, belongs to the argument of the gate's activation:

 1. From h_t:  n_bar = (1 - z) ∘ h_bar_t,  z_bar = (h_{t-1} - n) ∘ h_bar_t,  and directly to the past: z ∘ h_bar_t.
 2. Through the activations: n̂_bar = (1 - n²) ∘ n_bar,  ẑ_bar = z (1 - z) ∘ z_bar.
 3. n's argument is u_n + r ∘ v_n, so r_bar = v_n ∘ n̂_bar and r̂_bar = r (1 - r) ∘ r_bar.
 4. u_bar = (r̂_bar, ẑ_bar, n̂_bar) and v_bar = (r̂_bar, ẑ_bar, r ∘ n̂_bar): they differ only in the last rows.
 5. u and v are affine: W_x_bar = u_bar x_tᵀ, b_x_bar = u_bar, W_h_bar = v_bar h_{t-1}ᵀ, b_h_bar = v_bar,
    x_bar_t = W_xᵀ u_bar, h_bar_{t-1} = z ∘ h_bar_t + W_hᵀ v_bar.
"""

import functools
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp

from jaxbptt import initializers
from jaxbptt._algebra import matvec, outer, total, vecmat, with_bias
from jaxbptt._errors import arguments, initialisation
from jaxbptt._factory import factory
from jaxbptt.cells import _gru_reset_before
from jaxbptt.cells._from_split import matrix_cell, matrix_fits, zero_state
from jaxbptt.types import Array, Cell, TimeSplit


class GRUParams(NamedTuple):
    """``W_x [3n, d]``, ``W_h [3n, n]``, ``b_x [3n]``, ``b_h [3n]``; rows r, z, n.

    >>> import jaxbptt as jb
    >>> theta_h = jb.cells.gru().init(jax.random.key(0), input_size=3, hidden_size=5)
    >>> jax.tree.map(jnp.shape, theta_h)
    GRUParams(W_x=(15, 3), W_h=(15, 5), b_x=(15,), b_h=(15,))
    """

    W_x: Array
    W_h: Array
    b_x: Array
    b_h: Array


class _Gates(NamedTuple):
    r: Array
    z: Array
    n: Array
    v_n: Array


def _thirds(rows):
    return jnp.split(rows, 3, axis=-1)


def _project(theta_h, xs):
    return matvec(theta_h.W_x, xs)


def _gates(theta_h, projected, hs_tm1, hs=None):
    u_r, u_z, u_n = _thirds(with_bias(projected, theta_h.b_x))
    v_r, v_z, v_n = _thirds(with_bias(matvec(theta_h.W_h, hs_tm1), theta_h.b_h))
    r, z = jax.nn.sigmoid(u_r + v_r), jax.nn.sigmoid(u_z + v_z)
    return _Gates(r, z, jnp.tanh(u_n + r * v_n), v_n)


def _step(theta_h, projected_t, h_tm1):
    gates_t = _gates(theta_h, projected_t, h_tm1)
    _, z, n, _ = gates_t
    return (1 - z) * n + z * h_tm1, gates_t


def _step_vjp(theta_h, x_t, gates_t, h_tm1, h_t, delta_t):
    r, z, n, v_n = gates_t
    n_arg_bar = (1 - n * n) * (1 - z) * delta_t
    z_arg_bar = z * (1 - z) * (h_tm1 - n) * delta_t
    r_arg_bar = r * (1 - r) * v_n * n_arg_bar
    u_bar_t = jnp.concatenate([r_arg_bar, z_arg_bar, n_arg_bar], axis=-1)
    v_bar_t = jnp.concatenate([r_arg_bar, z_arg_bar, r * n_arg_bar], axis=-1)
    return u_bar_t, z * delta_t + vecmat(v_bar_t, theta_h.W_h)


def _param_vjp(theta_h, xs, hs_tm1, hs, gates, u_bars):
    r_arg_bar, z_arg_bar, n_arg_bar = _thirds(u_bars)
    v_bars = jnp.concatenate([r_arg_bar, z_arg_bar, gates.r * n_arg_bar], axis=-1)
    return GRUParams(
        W_x=outer(u_bars, xs, theta_h.W_x), W_h=outer(v_bars, hs_tm1, theta_h.W_h), b_x=total(u_bars), b_h=total(v_bars)
    )


def _input_vjp(theta_h, xs, hs_tm1, hs, gates, u_bars):
    return vecmat(u_bars, theta_h.W_x)


_SPLIT = TimeSplit(_project, _step, _gates, _step_vjp, _param_vjp, _input_vjp)


@factory
def gru(
    *,
    reset: Literal["after", "before"] = "after",
    W_x_init=initializers.glorot_uniform,
    W_h_init=initializers.orthogonal(),
    b_x_init=initializers.zeros,
    b_h_init=initializers.zeros,
) -> Cell:
    """The gated recurrent unit, ``n = tanh(W_x x + b_x + r ∘ (W_h h + b_h))`` as in cuDNN and ``torch.nn.GRU``.

    Parameters `GRUParams` with rows r, z, n; state ``h [*batch, n]``. One step costs 6·n·(n+d) flops a sample
    forward and twice that backward. The pullback is written by hand and exact.

    Args:
        reset: ``"after"`` the product, as above. ``"before"``: ``n = tanh(W_x x + b_x + W_h (r ∘ h) + b_h)``, as in
            Keras with ``reset_after=False``, haiku and ONNX; two products with W_h a step.
        W_x_init: ``(key, (n, d), dtype)``, called once a gate; Glorot uniform by default.
        W_h_init: ``(key, (n, n), dtype)``, called once a gate; random orthogonal by default.
        b_x_init: ``(key, (3, n), dtype)``, one row a gate (r, z, n); zeros by default,
            `jaxbptt.initializers.chrono` for long memories.
        b_h_init: likewise.

    Returns:
        A `Cell`. Equal arguments give the same object.

    Raises:
        TypeError, ValueError: for another `reset`, or an initialiser that can't be called so; ``init`` and ``apply``
            say what doesn't fit.

    Source: Cho et al. (2014), Learning phrase representations using RNN encoder-decoder.

    >>> cell = gru(b_x_init=initializers.chrono(100))
    >>> theta_h = cell.init(jax.random.key(0), input_size=3, hidden_size=5)
    >>> theta_h.W_x.shape, cell.apply(theta_h, jnp.ones((2, 3)), cell.initial_state(theta_h, (2,))).shape
    ((15, 3), (2, 5))
    """
    arguments.one_of("reset", reset, ("after", "before"), "there is no other place for it")
    W_x_init, W_h_init, b_x_init, b_h_init = initialisation.initializers(
        W_x_init=W_x_init, W_h_init=W_h_init, b_x_init=b_x_init, b_h_init=b_h_init
    )

    def init(key, input_size, hidden_size, dtype=jnp.float32):
        initialisation.init_arguments(key, dtype, input_size=input_size, hidden_size=hidden_size)
        key_x, key_h, key_bx, key_bh = jax.random.split(key, 4)
        return GRUParams(
            W_x=initializers.per_gate(W_x_init, 3)(key_x, (hidden_size, input_size), dtype),
            W_h=initializers.per_gate(W_h_init, 3)(key_h, (hidden_size, hidden_size), dtype),
            b_x=b_x_init(key_bx, (3, hidden_size), dtype).reshape(-1),
            b_h=b_h_init(key_bh, (3, hidden_size), dtype).reshape(-1),
        )

    check = functools.partial(matrix_fits, GRUParams, 3)
    split = _SPLIT if reset == "after" else _gru_reset_before.SPLIT
    return matrix_cell(split, init=init, initial_state=zero_state(GRUParams), check=check)
