"""Weights of Keras layers ``SimpleRNN``, ``GRU`` and ``LSTM``, as ``layer.get_weights()`` lists them.

Matrices there are the transposes of those here. The rows of the LSTM are i, f, g, o in both; those of the GRU are z, r,
n there and r, z, n here. A GRU with ``reset_after=True`` (two biases) is ``cells.gru()``, one without
``cells.gru(reset="before")``. Weights do not say the activations, nor which of the two a GRU without biases is.
"""

from collections.abc import Sequence
from typing import Any, Literal

import jax
import numpy as np

from jaxbptt._errors import arguments
from jaxbptt.cells import ElmanParams, GRUParams, LSTMParams
from jaxbptt.interop import _errors
from jaxbptt.interop import _params as make


def from_keras(weights: Sequence[Any]) -> Any:
    """θ_h of a layer.

    Args:
        weights: ``[kernel, recurrent_kernel, bias]``; without the last, biases are zeros here.

    Returns:
        `ElmanParams`, `GRUParams` or `LSTMParams`. Of a GRU with one bias, for ``cells.gru(reset="before")``.

    Raises:
        TypeError, ValueError: for what is no such list.

    >>> from_keras([np.ones((3, 15)), np.ones((5, 15)), np.ones((2, 15))]).b_h.shape
    (15,)
    """
    if not isinstance(weights, (list, tuple)) or len(weights) not in (2, 3):
        came = f"{len(weights)} of them" if isinstance(weights, (list, tuple)) else type(weights).__name__
        _errors.kind(
            "weights", came, "one layer, [kernel, recurrent_kernel] or with a bias", "pass `layer.get_weights()`"
        )
    W_x, W_h, *biases = map(np.asarray, weights)
    n, columns = W_h.shape if W_h.ndim == 2 and W_h.size else (1, 0)
    kind = make.BY_GATES.get(columns // n if columns % n == 0 else 0)
    if kind is None:
        came = f"a recurrent kernel of shape {list(W_h.shape)}"
        _errors.kind("weights", came, "a SimpleRNN, GRU or LSTM of Keras", "pass `layer.get_weights()`")
    _errors.shape("weights[0]", W_x, ((W_x.shape or (0,))[0], columns))
    b = biases[0] if biases else np.zeros(columns, W_h.dtype)
    if kind is not GRUParams:
        _errors.shape("weights[2]", b, (columns,))
        return kind(W_x.T, W_h.T, b)
    _errors.shape("weights[2]", b, (2, columns) if b.ndim == 2 else (columns,))
    b_x, b_h = b if b.ndim == 2 else (b, np.zeros_like(b))
    return make.gru(*(_swapped(array) for array in (W_x.T, W_h.T, b_x, b_h)))


def _swapped(array):
    """z, r, n to r, z, n, or back."""
    first, second, n = np.split(array, 3)
    return np.concatenate([second, first, n])


def to_keras(theta_h: Any, reset: Literal["after", "before"] = "after") -> list[np.ndarray]:
    """The weights for ``layer.set_weights``: the inverse of `from_keras`.

    Args:
        theta_h: `ElmanParams`, `GRUParams` or `LSTMParams`.
        reset: of a GRU: ``"after"`` for ``reset_after=True``; ``"before"`` for one bias, the sum of two.

    Raises:
        TypeError, ValueError: for others.

    >>> theta_h = GRUParams(np.ones((15, 3)), np.ones((15, 5)), np.ones(15), np.ones(15))
    >>> [array.shape for array in to_keras(theta_h)], to_keras(theta_h, "before")[2].shape
    ([(3, 15), (5, 15), (2, 15)], (15,))
    """
    arguments.one_of("reset", reset, ("after", "before"), "there is no other place for it")
    if not isinstance(theta_h, (ElmanParams, GRUParams, LSTMParams)):
        _errors.parameters(theta_h, "ElmanParams, GRUParams or LSTMParams")
    theta_h = jax.tree.map(np.asarray, theta_h)
    if not isinstance(theta_h, GRUParams):
        return [theta_h.W_x.T, theta_h.W_h.T, theta_h.b]
    W_x, W_h, b_x, b_h = map(_swapped, theta_h)
    return [W_x.T, W_h.T, np.stack([b_x, b_h]) if reset == "after" else b_x + b_h]
