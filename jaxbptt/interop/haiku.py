"""Weights of ``haiku.VanillaRNN``, ``GRU`` and ``LSTM``.

1. VanillaRNN has relu: take ``cells.elman("relu")``. Its two biases add up to one.
2. The GRU resets h before its product: take ``cells.gru(reset="before")``. There h_t = (1 - z) h_{t-1} + z n, so its z
   is 1 - z here: σ(-a) = 1 - σ(a), and the rows of z change their sign. Rows are z, r, n there and r, z, n here.
3. The LSTM adds 1 to the argument of f when it runs: 1 is added to b. Rows are i, g, f, o there and i, f, g, o here;
   W_x and W_h are one matrix.
"""

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from jaxbptt.cells import ElmanParams, GRUParams, LSTMParams
from jaxbptt.interop import _errors
from jaxbptt.interop import _params as make

_RNN = ("linear", "linear_1")  # of the input, of h
_GRU = ("w_i", "w_h", "b")


def from_haiku(params: Mapping[str, Any]) -> Any:
    """θ_h of a core.

    Args:
        params: those of one core, as ``init`` of ``haiku.transform`` gives them: a dict of dicts by module name.

    Returns:
        `ElmanParams`, `GRUParams` for ``cells.gru(reset="before")``, or `LSTMParams`.

    Raises:
        TypeError, ValueError: for what is no such dict.

    >>> w = {"w_i": np.ones((3, 15)), "w_h": np.ones((5, 15)), "b": np.ones(15)}
    >>> from_haiku({"gru": w}).W_x.shape
    (15, 3)
    """
    _errors.mapping("params", params, "haiku")
    modules = {str(name): _module(name, arrays) for name, arrays in params.items()}
    cores = {name.rpartition("/")[0] for name in modules}
    by_end = {name.rpartition("/")[2]: (name, arrays) for name, arrays in modules.items()}
    # Without a core above it, a linear layer is only that.
    if len(cores) == 1 and "" not in cores and set(by_end) == set(_RNN):
        (W_x, b_x), (W_h, b_h) = (_linear(*by_end[name], 1) for name in _RNN)
        return _errors.fits("params", make.elman(W_x.T, W_h.T, _sum(b_x, b_h)))
    if len(cores) == 1 and "" not in cores and set(by_end) == {"linear"}:
        W, b = (_gates(array.T, "igfo") for array in _linear(*by_end["linear"], 4))
        n = len(b) // 4
        b[n : 2 * n] += 1
        return _errors.fits("params", make.lstm(W[:, : W.shape[1] - n], W[:, W.shape[1] - n :], b))
    if len(modules) == 1 and "linear" not in by_end:
        ((name, arrays),) = modules.items()
        _errors.keys(f"params[{name!r}]", arrays, _GRU, "pass those of one core")
        for key in ("w_i", "w_h"):
            _errors.columns(f"params[{name!r}][{key!r}]", arrays[key], 3)
        _errors.shape(f"params[{name!r}]['b']", arrays["b"], arrays["w_h"].shape[1:])
        W_x, W_h, b = (_gates(arrays[key].T, "zrn") for key in _GRU)
        return _errors.fits("params", make.gru(W_x, W_h, b, np.zeros_like(b)))
    known, remedy = "one VanillaRNN, GRU or LSTM of haiku", "pass those of one core, under the names it gave them"
    return _errors.kind("params", f"modules {sorted(modules)}", known, remedy)


def _module(name, arrays) -> dict[str, Any]:
    _errors.mapping(f"params[{name!r}]", arrays, "haiku")
    return {str(key): np.asarray(array) for key, array in arrays.items()}


def _linear(name, arrays, gates):
    """Its w and b; b = 0 where it has none."""
    _errors.keys(f"params[{name!r}]", arrays, ("w", "b") if "b" in arrays else ("w",), "pass those of one core")
    w = arrays["w"]
    _errors.columns(f"params[{name!r}]['w']", w, gates)
    b = arrays.get("b", np.zeros(w.shape[1], w.dtype))
    _errors.shape(f"params[{name!r}]['b']", b, w.shape[1:])
    return w, b


def _sum(b_x, b_h):
    _errors.shape("params, the bias of h", b_h, b_x.shape)
    return b_x + b_h


def _gates(array, rows):
    """A copy with the rows in the order of the cells here, from that of haiku, or back: both are their own inverse."""
    parts = dict(zip(rows, np.split(array, len(rows)), strict=True))
    if rows == "zrn":
        return np.concatenate([parts["r"], -parts["z"], parts["n"]])
    return np.concatenate([parts["i"], parts["f"], parts["g"], parts["o"]])


def to_haiku(theta_h: Any, name: str | None = None) -> dict[str, Any]:
    """Parameters of the core: the inverse of `from_haiku`, but for biases that were two.

    The LSTM's 1 is taken off again, which may round the last bit of b.

    Args:
        theta_h: `ElmanParams`, `GRUParams` of ``cells.gru(reset="before")``, or `LSTMParams`.
        name: of the module; by default ``vanilla_rnn``, ``gru`` or ``lstm``.

    Raises:
        TypeError: for others.

    >>> theta_h = LSTMParams(np.ones((20, 3)), np.ones((20, 5)), np.ones(20))
    >>> to_haiku(theta_h)["lstm/linear"]["w"].shape
    (8, 20)
    """
    if not isinstance(theta_h, (ElmanParams, GRUParams, LSTMParams)):
        _errors.parameters(theta_h, "ElmanParams, GRUParams or LSTMParams")
    theta_h = jax.tree.map(np.asarray, theta_h)
    if isinstance(theta_h, ElmanParams):
        one, two = ({"w": W.T} for W in (theta_h.W_x, theta_h.W_h))
        name = name or "vanilla_rnn"
        return {f"{name}/{_RNN[0]}": one | {"b": theta_h.b}, f"{name}/{_RNN[1]}": two | {"b": np.zeros_like(theta_h.b)}}
    if isinstance(theta_h, GRUParams):
        W_x, W_h, b = (_back(array) for array in (theta_h.W_x, theta_h.W_h, theta_h.b_x + theta_h.b_h))
        return {name or "gru": {"w_i": W_x.T, "w_h": W_h.T, "b": b}}
    n = theta_h.W_h.shape[1]
    b = np.array(theta_h.b)
    b[n : 2 * n] -= 1
    W = np.concatenate([theta_h.W_x, theta_h.W_h], axis=1)
    W, b = (np.concatenate([i, g, f, o]) for i, f, g, o in (np.split(array, 4) for array in (W, b)))
    return {f"{name or 'lstm'}/linear": {"w": W.T, "b": b}}


def _back(array):
    r, z, n = np.split(array, 3)
    return np.concatenate([-z, r, n])
