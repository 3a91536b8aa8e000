"""The GRU that resets h_{t-1} before its product, as first published, in Keras, haiku and ONNX by default.

    u_t = W_x x_t + b_x            rows r, z, n of each matrix and bias
    r_t = σ(u_r + W_r h_{t-1} + b_r)    z_t = σ(u_z + W_z h_{t-1} + b_z)
    n_t = tanh(u_n + W_n (r_t ∘ h_{t-1}) + b_n)        h_t = (1 - z_t) ∘ n_t + z_t ∘ h_{t-1}

Pullback, with delta_t = ∂F/∂h_t; a bar with a hat belongs to the argument of the gate's activation:

 1. As where the reset comes after: n̂_bar = (1 - n²) (1 - z) ∘ delta_t,  ẑ_bar = z (1 - z) (h_{t-1} - n) ∘ delta_t.
 2. With q = r ∘ h_{t-1}: q_bar = W_nᵀ n̂_bar, so r̂_bar = r (1 - r) ∘ h_{t-1} ∘ q_bar.
 3. u_bar = (r̂_bar, ẑ_bar, n̂_bar): W_x_bar = u_bar x_tᵀ, b_x_bar = b_h_bar = u_bar; W_r and W_z read h_{t-1}, W_n reads
    q: W_n_bar = n̂_bar qᵀ.
 4. h_bar_{t-1} = z ∘ delta_t + r ∘ q_bar + W_rᵀ r̂_bar + W_zᵀ ẑ_bar.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxbptt._algebra import matvec, outer, total, vecmat, with_bias
from jaxbptt.types import Array, TimeSplit


class _Gates(NamedTuple):
    r: Array
    z: Array
    n: Array


_thirds = functools.partial(jnp.split, indices_or_sections=3, axis=-1)


def _rows(leaf):
    """Those of r and z, and those of n."""
    size = leaf.shape[0] // 3
    return leaf[: 2 * size], leaf[2 * size :]


def _project(theta_h, xs):
    return matvec(theta_h.W_x, xs)


def _gates(theta_h, us, hs_tm1, hs=None):
    (W_rz, W_n), (b_rz, b_n) = _rows(theta_h.W_h), _rows(theta_h.b_h)
    u_r, u_z, u_n = _thirds(with_bias(us, theta_h.b_x))
    v_r, v_z = jnp.split(with_bias(matvec(W_rz, hs_tm1), b_rz), 2, axis=-1)
    r, z = jax.nn.sigmoid(u_r + v_r), jax.nn.sigmoid(u_z + v_z)
    return _Gates(r, z, jnp.tanh(u_n + with_bias(matvec(W_n, r * hs_tm1), b_n)))


def _step(theta_h, u_t, h_tm1):
    gates_t = _gates(theta_h, u_t, h_tm1)
    _, z, n = gates_t
    return (1 - z) * n + z * h_tm1, gates_t


def _step_vjp(theta_h, x_t, gates_t, h_tm1, h_t, delta_t):
    (r, z, n), (W_rz, W_n) = gates_t, _rows(theta_h.W_h)
    n_arg_bar = (1 - n * n) * (1 - z) * delta_t
    z_arg_bar = z * (1 - z) * (h_tm1 - n) * delta_t
    q_bar = vecmat(n_arg_bar, W_n)
    r_arg_bar = r * (1 - r) * h_tm1 * q_bar
    through_gates = vecmat(jnp.concatenate([r_arg_bar, z_arg_bar], axis=-1), W_rz)
    return jnp.concatenate([r_arg_bar, z_arg_bar, n_arg_bar], axis=-1), z * delta_t + r * q_bar + through_gates


def _param_vjp(theta_h, xs, hs_tm1, hs, gates, u_bars):
    W_rz, W_n = _rows(theta_h.W_h)
    rz_bars, n_bars = jnp.split(u_bars, [W_rz.shape[0]], axis=-1)
    of_W_h = outer(rz_bars, hs_tm1, W_rz), outer(n_bars, gates.r * hs_tm1, W_n)
    return type(theta_h)(
        W_x=outer(u_bars, xs, theta_h.W_x), W_h=jnp.concatenate(of_W_h), b_x=total(u_bars), b_h=total(u_bars)
    )


def _input_vjp(theta_h, xs, hs_tm1, hs, gates, u_bars):
    return vecmat(u_bars, theta_h.W_x)


SPLIT = TimeSplit(_project, _step, _gates, _step_vjp, _param_vjp, _input_vjp)
