"""Weights of the cells of flax, linen and nnx: ``SimpleCell``, ``GRUCell``, ``LSTMCell`` and ``OptimizedLSTMCell``.

A kernel there is the transposed of W here. The equations and the gates are the same. Where linen has a layer a gate,
nnx may have one for all of them, with rows in the order of those here. The GRU there has no b_h but for the rows n
(linen), or none (nnx). Parameters do not say the activations, nor ``SimpleCell(residual=True)``: the equations here are
those of the defaults.
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
_LAYERS = [
    {"i", "h"},
    {"dense_i", "dense_h"},
    *({f"{side}{gate}" for side in "ih" for gate in gates} for gates in (_GRU, _LSTM)),
]  # of the cells of linen and nnx


def from_flax(params: Mapping[str, Any]) -> Any:
    """θ_h of a cell.

    Args:
        params: those of one cell: the dict ``variables["params"]`` of linen, or ``nnx.state(cell, nnx.Param)`` or its
            pure dict. Biases it lacks are zeros here.

    Returns:
        `ElmanParams`, `GRUParams` or `LSTMParams`.

    Raises:
        TypeError, ValueError: for what is no such dict, or another cell's.

    >>> i, h = {"kernel": np.ones((3, 5)), "bias": np.ones(5)}, {"kernel": np.ones((5, 5))}
    >>> from_flax({"i": i, "h": h}).W_x.shape
    (5, 3)
    """
    _errors.mapping("params", params, "flax")
    names = {str(name).rstrip("_") for name in params}
    if names not in _LAYERS:
        closest = min(_LAYERS, key=lambda known: len(known ^ names))
        came = f"layers {sorted(names)}; of the closest, missing {sorted(closest - names)}, extra"
        known, remedy = "one SimpleCell, GRUCell or LSTMCell of flax", "pass `variables['params']` of the cell alone"
        _errors.kind("params", f"{came} {sorted(names - closest)}", known, f"{remedy}, or `nnx.state(cell, nnx.Param)`")
    layers: dict[str, Any] = {str(name).rstrip("_"): _layer(name, layer) for name, layer in params.items()}
    if "h" in names or "dense_h" in names:
        (W_x, b_x), (W_h, b_h) = (layers[side if "h" in names else f"dense_{side}"] for side in "ih")
    else:
        order = _GRU if "hr" in names else _LSTM
        (W_x, b_x), (W_h, b_h) = (_gates(layers, [f"{side}{gate}" for gate in order]) for side in "ih")
    rows, n = W_h.shape
    gates = rows // n if rows % n == 0 else 0
    if gates not in make.BY_GATES or ("h" in names and gates > 1):
        known, remedy = "a cell with kernels of h [n, n], [n, 3n] or [n, 4n]", "pass those of one cell"
        _errors.kind("params", f"kernels [{n}, {rows}]", known, remedy)
    _errors.shape("params, the biases of h", b_h, b_x.shape)
    theta_h = make.gru(W_x, W_h, b_x, b_h) if gates == 3 else make.BY_GATES[gates](W_x, W_h, b_x + b_h)
    return _errors.fits("params", theta_h)


def _gates(layers, names):
    """The rows of all gates, one gate's below the other's."""
    for name in names[1:]:
        _errors.shape(f"params[{name!r}]['kernel']", layers[name][0].T, layers[names[0]][0].T.shape)
    return tuple(np.concatenate(parts) for parts in zip(*(layers[name] for name in names), strict=True))


def _layer(name, layer) -> Any:
    """W and b of a dense layer; b = 0 where it has none."""
    _errors.mapping(f"params[{name!r}]", layer, "flax")
    wanted = ("kernel", "bias") if "bias" in layer else ("kernel",)
    _errors.keys(f"params[{name!r}]", layer, wanted, "pass the parameters of one cell")
    kernel = _array(layer["kernel"])
    _errors.columns(f"params[{name!r}]['kernel']", kernel, 1)
    if layer.get("bias") is None:
        return kernel.T, np.zeros(kernel.shape[1], kernel.dtype)
    _errors.shape(f"params[{name!r}]['bias']", bias := _array(layer["bias"]), kernel.shape[1:])
    return kernel.T, bias


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
