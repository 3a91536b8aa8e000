"""Weights of the cells of flax, linen and nnx: ``SimpleCell``, ``GRUCell``, ``LSTMCell`` and ``OptimizedLSTMCell``.

A kernel there is the transposed of W here. The equations and the gates are the same. Where linen has a layer a gate,
nnx may have one for all of them, with rows in the order of those here. The GRU there has no b_h but for the rows n
(linen), or none (nnx).
"""

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from jaxbptt.cells import ElmanParams, GRUParams, LSTMParams
from jaxbptt.interop import _errors
from jaxbptt.interop import _params as make
from jaxbptt.interop.equinox import one_bias_but_for_n

_GRU, _LSTM = ("r", "z", "n"), ("i", "f", "g", "o")


def from_flax(params: Mapping[str, Any]) -> Any:
    """θ_h of a cell.

    Args:
        params: those of one cell: the dict ``variables["params"]`` of linen, or ``nnx.state(cell, nnx.Param)``.

    Returns:
        `ElmanParams`, `GRUParams` or `LSTMParams`.

    Raises:
        TypeError, ValueError: for what is no such dict, or another cell's.

    >>> i, h = {"kernel": np.ones((3, 5)), "bias": np.ones(5)}, {"kernel": np.ones((5, 5))}
    >>> from_flax({"i": i, "h": h}).W_x.shape
    (5, 3)
    """
    _errors.mapping("params", params, "flax")
    layers: dict[str, Any] = {str(name).rstrip("_"): _layer(name, layer) for name, layer in params.items()}
    names = set(layers)
    if names == {"i", "h"}:
        return _elman(*(layers[name] for name in "ih"))
    if names == {"dense_i", "dense_h"}:
        (W_x, b_x), (W_h, b_h) = (layers[name] for name in ("dense_i", "dense_h"))
        gates = len(W_h) // W_h.shape[1]
        if gates == 1:
            return _elman((W_x, b_x), (W_h, b_h))
        return make.gru(W_x, W_h, b_x, b_h) if gates == 3 else make.lstm(W_x, W_h, b_x + b_h)
    for kind, gates in ((GRUParams, _GRU), (LSTMParams, _LSTM)):
        if names == {f"{side}{gate}" for side in "ih" for gate in gates}:
            (W_x, b_x), (W_h, b_h) = (
                map(np.concatenate, zip(*(layers[f"{side}{gate}"] for gate in gates), strict=True)) for side in "ih"
            )
            return make.gru(W_x, W_h, b_x, b_h) if kind is GRUParams else make.lstm(W_x, W_h, b_x + b_h)
    return _errors.kind("params", f"layers {sorted(names)}", "one SimpleCell, GRUCell or LSTMCell of flax")


def _elman(of_x, of_h):
    return make.elman(of_x[0], of_h[0], of_x[1] + of_h[1])


def _layer(name, layer) -> Any:
    """W and b of a dense layer; b = 0 where it has none."""
    _errors.mapping(f"params[{name!r}]", layer, "flax")
    kernel: Any = _array(layer["kernel"]) if "kernel" in layer else np.zeros(0)
    if kernel.ndim != 2:
        _errors.kind(f"params[{name!r}]", f"{sorted(map(str, layer))}", "a dense layer, with a matrix `kernel`")
    bias = layer.get("bias")
    return kernel.T, np.zeros(kernel.shape[1], kernel.dtype) if bias is None else _array(bias)


def _array(leaf):
    """A leaf of linen is an array; one of nnx holds it."""
    return np.asarray(leaf.get_value() if hasattr(leaf, "get_value") else leaf)


def to_flax(theta_h: Any) -> dict[str, Any]:
    """Parameters of the cell of linen; ``LSTMCell`` and ``OptimizedLSTMCell`` have the same.

    Args:
        theta_h: `ElmanParams`, `GRUParams` or `LSTMParams`. What b_h has for r and z goes to the other bias, where it
            adds up.

    Raises:
        TypeError: for others.

    >>> sorted(to_flax(ElmanParams(np.ones((5, 3)), np.ones((5, 5)), np.ones(5)))["h"])
    ['kernel']
    """
    if not isinstance(theta_h, (ElmanParams, GRUParams, LSTMParams)):
        _errors.parameters(theta_h, "ElmanParams, GRUParams or LSTMParams")
    theta_h = jax.tree.map(np.asarray, theta_h)
    if isinstance(theta_h, ElmanParams):
        return {"i": {"kernel": theta_h.W_x.T, "bias": theta_h.b}, "h": {"kernel": theta_h.W_h.T}}
    gates = _GRU if isinstance(theta_h, GRUParams) else _LSTM
    kernels = {
        f"{side}{gate}": {"kernel": rows.T}
        for side, W in (("i", theta_h.W_x), ("h", theta_h.W_h))
        for gate, rows in zip(gates, np.split(W, len(gates)), strict=True)
    }
    if isinstance(theta_h, GRUParams):
        b_x, b_n = one_bias_but_for_n(theta_h)
        biases = {f"i{gate}": part for gate, part in zip(_GRU, np.split(b_x, 3), strict=True)} | {"hn": b_n}
    else:
        biases = {f"h{gate}": part for gate, part in zip(_LSTM, np.split(theta_h.b, 4), strict=True)}
    return {name: layer | ({"bias": biases[name]} if name in biases else {}) for name, layer in kernels.items()}
