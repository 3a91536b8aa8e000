"""What studies of online gradients share: a sparse GRU, and a local rule for cells with one W_h."""

import functools
from typing import Any

import jax.numpy as jnp
import numpy as np

import jaxbptt as jb


def sparse_gru(W_x: np.ndarray, W_h: np.ndarray) -> jb.Cell:
    """The GRU whose weights are zero for good where a mask is False.

    Args:
        W_x: ``[3n, d]``, boolean.
        W_h: ``[3n, n]``, boolean.

    >>> import jax
    >>> cell = sparse_gru(np.ones((6, 3), bool), np.tile(np.eye(2, dtype=bool), (3, 1)))
    >>> theta_h = cell.init(jax.random.key(0), 3, 2, jnp.float32)
    >>> cell.apply(theta_h, jnp.ones(3, jnp.float32), cell.initial_state(theta_h, ())).shape
    (2,)
    """
    masks: list[Any] = [W_x, W_h, None, None]
    cell = jb.cells.sparse(jb.cells.gru(), jb.cells.GRUParams(*masks))
    return cell._replace(init=functools.partial(_init, cell.init, *map(_scale, (W_x, W_h))))


def _scale(mask):
    """What is left has the variance that keeps a sum over it as large as a dense one."""
    return float(1 / np.sqrt(max(mask.mean(), 1 / mask.size)))


def _init(init, scale_x, scale_h, key, input_size, hidden_size, dtype=jnp.float32):
    theta_h = init(key, input_size, hidden_size, dtype)
    return theta_h._replace(W_x=scale_x * theta_h.W_x, W_h=scale_h * theta_h.W_h)


def local(model: jb.Model, loss: jb.types.Loss) -> jb.GradientEstimator:
    """RTRL with the recurrent weights left out of c_t: a trace that needs nothing but its own unit.

    That is e-prop with exact output weights. In a GRU what stays of c_t is the leak z_t; in an Elman cell, nothing.

    Args:
        model: f and g, f with ``W_h`` and its bias ``b_h`` or ``b`` in one sum.
        loss: L.
    """
    cell = model.cell._replace(vjp=functools.partial(_vjp, model.cell.vjp), split=None)
    return jb.estimators.rtrl(jb.rnn(cell, model.readout), loss)


def _vjp(vjp, theta_h, x_t, h_tm1, h_t, h_bar_t):
    """b_t as it is, c_t where W_h h_{t-1} counts as a bias: the gates keep their values."""
    theta_bar, x_bar_t, _ = vjp(theta_h, x_t, h_tm1, h_t, h_bar_t)
    bias = "b_h" if hasattr(theta_h, "b_h") else "b"
    fixed = {bias: getattr(theta_h, bias) + theta_h.W_h @ h_tm1, "W_h": jnp.zeros_like(theta_h.W_h)}
    return theta_bar, x_bar_t, vjp(theta_h._replace(**fixed), x_t, h_tm1, h_t, h_bar_t)[2]
