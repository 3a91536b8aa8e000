"""Weights of ``torch.nn.RNN``, ``GRU`` and ``LSTM``.

The equations are the same, row by row: r, z, n of the GRU and i, f, g, o of the LSTM. ``torch`` adds two biases where
Elman and LSTM here have one: from ``torch`` it is their sum; to ``torch`` the second is 0. The GRU has two here too.
A state dict does not say the nonlinearity of an RNN: take ``cells.elman()`` for tanh, ``cells.elman("relu")`` for relu.
"""

import re
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from jaxbptt.cells import ElmanParams, GRUParams, LSTMParams
from jaxbptt.interop import _errors
from jaxbptt.interop import _params as make
from jaxbptt.layers import Directions

_KEY = re.compile(r"(weight_ih|weight_hh|bias_ih|bias_hh)_l(\d+)(_reverse)?")


def from_torch(state_dict: Mapping[str, Any]) -> tuple:
    """θ_h of layers, as ``jb.rnn((cell, …), readout)`` has it, from a state dict.

    Args:
        state_dict: of one ``torch.nn.RNN``, ``GRU`` or ``LSTM``: ``weight_ih_l0 [rows, d]`` and so on, of any number
            of layers and of one direction or two. Without biases they are zeros here. Tensors must be on the CPU and
            of a dtype that NumPy has.

    Returns:
        A tuple, one entry a layer: `ElmanParams`, `GRUParams` or `LSTMParams`; `Directions` of them for two. Copies:
        a step of training in ``torch`` leaves them as they are.

    Raises:
        TypeError, ValueError: for what is no such dict, missing or extra keys, shapes that fit no cell.
        NotImplementedError: for an LSTM with ``proj_size``.

    >>> arrays = {"weight_ih_l0": np.ones((15, 3)), "weight_hh_l0": np.ones((15, 5))}
    >>> (theta,) = from_torch(arrays | {"bias_ih_l0": np.ones(15), "bias_hh_l0": np.ones(15)})
    >>> type(theta).__name__, theta.W_x.shape
    ('GRUParams', (15, 3))
    """
    _errors.mapping("state_dict", state_dict, "torch")
    names = [str(name) for name in state_dict]
    found, biased = {}, any(name.startswith("bias") for name in names)
    for name in names:
        if name.startswith("weight_hr"):
            _errors.projection(name)
        if match := _KEY.fullmatch(name):
            found.setdefault((int(match[2]), match[3] or ""), set()).add(match[1])
    layers = 1 + max((layer for layer, _ in found), default=0)
    suffixes = ("", "_reverse") if any(suffix for _, suffix in found) else ("",)
    kinds = ("weight_ih", "weight_hh", *(("bias_ih", "bias_hh") if biased else ()))
    wanted = [f"{kind}_l{k}{suffix}" for k in range(layers) for suffix in suffixes for kind in kinds]
    _errors.keys("state_dict", names, wanted, "pass that of the recurrent module alone")
    each = [[_params(state_dict, f"_l{k}{suffix}", biased) for suffix in suffixes] for k in range(layers)]
    _errors.alike("state_dict", each)
    for k, pair in enumerate(each[1:], start=1):
        for suffix, params in zip(suffixes, pair, strict=True):
            rows, n = params.W_h.shape
            _errors.shape(f"weight_ih_l{k}{suffix}", params.W_x, (rows, n * len(pair)))
    return tuple(Directions(*pair) if len(pair) == 2 else pair[0] for pair in each)


def _params(state_dict, end, biased):
    W_x, W_h = (_copy(state_dict[f"{kind}{end}"]) for kind in ("weight_ih", "weight_hh"))
    rows, n = W_h.shape if W_h.ndim == 2 and W_h.size else (0, 1)
    kind = make.BY_GATES.get(rows // n if rows % n == 0 else 0)
    if kind is None:
        known = "RNN [n, n], GRU [3n, n] or LSTM [4n, n]"
        _errors.kind(f"weight_hh{end}", f"shape {list(W_h.shape)}", known, "pass the state dict of one of these")
    _errors.shape(f"weight_ih{end}", W_x, (rows, (W_x.shape or (0,))[-1]))
    b_x, b_h = (
        _copy(state_dict[f"{name}{end}"]) if biased else np.zeros(rows, W_x.dtype) for name in ("bias_ih", "bias_hh")
    )
    _errors.shape(f"bias_ih{end}", b_x, (rows,))
    _errors.shape(f"bias_hh{end}", b_h, (rows,))
    return make.gru(W_x, W_h, b_x, b_h) if kind is GRUParams else kind(W_x, W_h, b_x + b_h)


def _copy(tensor):
    """An array of its own: a tensor on the CPU and what NumPy makes of it share their memory."""
    return np.asarray(tensor).copy()


def to_torch(theta_h: tuple) -> dict[str, Any]:
    """A state dict of θ_h: the inverse of `from_torch`, but for biases that were two.

    Args:
        theta_h: a tuple, one entry a layer, all of one kind, one size and as many directions.

    Returns:
        NumPy arrays, copies, by the names of ``torch``; ``load_state_dict`` wants tensors of them, as
        ``torch.from_numpy`` makes them.

    Raises:
        TypeError, ValueError: for what is no such tuple.

    >>> theta_h = from_torch({"weight_ih_l0": np.ones((4, 3)), "weight_hh_l0": np.ones((4, 4))})
    >>> sorted(to_torch(theta_h))
    ['bias_hh_l0', 'bias_ih_l0', 'weight_hh_l0', 'weight_ih_l0']
    """
    known = "a tuple of ElmanParams, GRUParams or LSTMParams, one a layer"
    if not isinstance(theta_h, tuple) or hasattr(theta_h, "_fields"):
        _errors.parameters(theta_h, known)
    layers = [tuple(layer) if isinstance(layer, Directions) else (layer,) for layer in theta_h]
    for params in (params for layer in layers for params in layer):
        if not isinstance(params, (ElmanParams, GRUParams, LSTMParams)):
            _errors.parameters(params, known)
    _errors.alike("theta_h", layers)
    state_dict = {}
    for k, layer in enumerate(layers):
        for suffix, params in zip(("", "_reverse"), layer, strict=False):
            W_x, W_h, b_x, *b_h = jax.tree.map(np.array, params)
            arrays = {
                "weight_ih": W_x,
                "weight_hh": W_h,
                "bias_ih": b_x,
                "bias_hh": b_h[0] if b_h else np.zeros_like(b_x),
            }
            state_dict |= {f"{name}_l{k}{suffix}": array for name, array in arrays.items()}
    return state_dict
