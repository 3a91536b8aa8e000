"""Weights of ``equinox.nn.GRUCell`` and ``LSTMCell``.

The equations and the order of rows are the same. The GRU there has one bias for u and one for the rows n of v alone:
b_h = (0, 0, bias_n) here.
"""

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from jaxbptt.cells import GRUParams, LSTMParams
from jaxbptt.interop import _errors
from jaxbptt.interop import _params as make

_GRU, _LSTM = ("weight_ih", "weight_hh", "bias", "bias_n"), ("weight_ih", "weight_hh", "bias")


def from_equinox(cell: Any) -> GRUParams | LSTMParams:
    """θ_h of a cell.

    Args:
        cell: an ``equinox.nn.GRUCell`` or ``LSTMCell``, or a dict of its arrays. Without biases they are zeros here.

    Returns:
        `GRUParams` or `LSTMParams`.

    Raises:
        TypeError, ValueError: for what has no such arrays, or arrays that fit neither.

    >>> arrays = {"weight_ih": np.ones((20, 3)), "weight_hh": np.ones((20, 5)), "bias": np.ones(20)}
    >>> from_equinox(arrays).W_h.shape
    (20, 5)
    """
    arrays = cell if isinstance(cell, Mapping) else {name: getattr(cell, name, None) for name in _GRU}
    arrays = {name: np.asarray(array) for name, array in arrays.items() if array is not None}
    came = arrays["weight_hh"].shape if "weight_hh" in arrays else ()
    rows, n = came if len(came) == 2 and came[1] else (0, 1)
    if rows not in (3 * n, 4 * n):
        _errors.kind(
            "cell",
            f"the arrays {sorted(arrays)} with weight_hh {list(came)}",
            "an equinox GRUCell or LSTMCell",
            "pass the cell alone",
        )
    biased = "bias" in arrays or "bias_n" in arrays
    wanted = (_GRU if rows == 3 * n else _LSTM)[: None if biased else 2]
    _errors.keys("cell", arrays, wanted, "pass the cell alone")
    W_x, W_h = arrays["weight_ih"], arrays["weight_hh"]
    b = arrays.get("bias", np.zeros(rows, W_h.dtype))
    if rows == 4 * n:
        return _errors.fits("cell", make.lstm(W_x, W_h, b))
    b_n = arrays.get("bias_n", np.zeros(n, W_h.dtype))
    _errors.shape("bias_n", b_n, (n,))
    return _errors.fits("cell", make.gru(W_x, W_h, b, np.concatenate([np.zeros(2 * n, b_n.dtype), b_n])))


def to_equinox(theta_h: GRUParams | LSTMParams) -> dict[str, Any]:
    """The arrays of the cell, for ``equinox.tree_at``. What b_h has for r and z goes to ``bias``, where it adds up.

    Args:
        theta_h: `GRUParams` or `LSTMParams`.

    Raises:
        TypeError: for others.

    >>> theta_h = GRUParams(np.ones((15, 3)), np.ones((15, 5)), np.ones(15), np.ones(15))
    >>> to_equinox(theta_h)["bias"].tolist()[::5], to_equinox(theta_h)["bias_n"].shape
    ([2.0, 2.0, 1.0], (5,))
    """
    if not isinstance(theta_h, (GRUParams, LSTMParams)):
        _errors.parameters(theta_h, "GRUParams or LSTMParams")
    theta_h = jax.tree.map(np.asarray, theta_h)
    if isinstance(theta_h, LSTMParams):
        return {"weight_ih": theta_h.W_x, "weight_hh": theta_h.W_h, "bias": theta_h.b}
    b_x, b_h = one_bias_but_for_n(theta_h)
    return {"weight_ih": theta_h.W_x, "weight_hh": theta_h.W_h, "bias": b_x, "bias_n": b_h}


def one_bias_but_for_n(theta_h: GRUParams) -> tuple[np.ndarray, np.ndarray]:
    """The bias of all rows, and that of the rows n of W_h h alone."""
    n = theta_h.W_h.shape[1]
    b_x, b_h = (np.array(bias) for bias in (theta_h.b_x, theta_h.b_h))
    b_x[: 2 * n] += b_h[: 2 * n]
    return b_x, b_h[2 * n :]
