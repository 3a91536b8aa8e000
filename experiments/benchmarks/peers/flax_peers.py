"""flax: ``nnx.RNN`` and ``linen.RNN`` of SimpleCell, GRUCell and OptimizedLSTMCell, by their functional interface.

Equations as ours. ``nnx.GRUCell`` has no bias beside W_h, ``linen.GRUCell`` has only its rows n; both start at 0 here.
The state of the LSTM is (c, h).
"""

import jax
import jax.numpy as jnp

from experiments.benchmarks.peers.contender import Built, Contender, arrays, compiled, loss, states
from experiments.benchmarks.peers.work import Work

_CELLS = {"elman": "SimpleCell", "gru": "GRUCell", "lstm": "OptimizedLSTMCell"}


def _rest(work, bars):
    h_0 = bars["h_0"]
    return {"xs": bars["xs"], **states(h_0[::-1] if work.cell == "lstm" else (h_0,))}


def _carry(work, h_0):
    return h_0[::-1] if work.cell == "lstm" else h_0[0]


def build_nnx(work: Work) -> Built:
    """``nnx.RNN``: split into structure and parameters once, then differentiated as a function of the parameters."""
    from flax import nnx  # pyright: ignore[reportMissingImports]

    weights, xs, h_0 = arrays(work)
    cell = getattr(nnx, _CELLS[work.cell])(work.shape.d, work.shape.n, rngs=nnx.Rngs(0))
    bias_of = cell.dense_h if work.cell == "lstm" else cell.dense_i
    cell.dense_i.kernel, cell.dense_h.kernel = nnx.Param(weights["W_x"].T), nnx.Param(weights["W_h"].T)
    bias_of.bias = nnx.Param(weights["b"])
    structure, params, rest = nnx.split(nnx.RNN(cell, time_major=True), nnx.Param, ...)

    def F(params, xs, h_0):
        return loss(nnx.merge(structure, params, rest)(xs, initial_carry=h_0))

    def read(bars):
        own = nnx.to_pure_dict(bars["params"])["cell"]
        bias = own["dense_h" if work.cell == "lstm" else "dense_i"]["bias"]
        own = {"W_x": own["dense_i"]["kernel"].T, "W_h": own["dense_h"]["kernel"].T, "b": bias}
        return own | _rest(work, bars)

    return compiled(F, (params, xs, _carry(work, h_0)), {"params": 0, "xs": 1, "h_0": 2}, read)


def build_linen(work: Work) -> Built:
    """``linen.RNN``."""
    from flax import linen  # pyright: ignore[reportMissingImports]

    weights, xs, h_0 = arrays(work)
    inputs, hidden = _LINEN_NAMES[work.cell]
    layer = linen.RNN(getattr(linen, _CELLS[work.cell])(work.shape.n), time_major=True)
    rows = {name: jnp.split(W, len(inputs)) for name, W in weights.items()}
    own = {}
    for k, (x, h) in enumerate(zip(inputs, hidden, strict=True)):
        own[x], own[h] = {"kernel": rows["W_x"][k].T}, {"kernel": rows["W_h"][k].T}
        own[h if work.cell == "lstm" else x]["bias"] = rows["b"][k]
    if work.cell == "gru":
        own["hn"]["bias"] = rows["b_h"][2]

    def F(params, xs, h_0):
        return loss(layer.apply({"params": {"cell": params}}, xs, initial_carry=h_0))

    def read(bars):
        own = bars["params"]
        biased = hidden if work.cell == "lstm" else inputs
        found = {
            "W_x": jnp.concatenate([own[x]["kernel"].T for x in inputs]),
            "W_h": jnp.concatenate([own[h]["kernel"].T for h in hidden]),
            "b": jnp.concatenate([own[name]["bias"] for name in biased]),
        }
        return found | ({"b_hn": own["hn"]["bias"]} if work.cell == "gru" else {}) | _rest(work, bars)

    arguments = (jax.tree.map(jnp.asarray, own), xs, _carry(work, h_0))
    return compiled(F, arguments, {"params": 0, "xs": 1, "h_0": 2}, read)


_LINEN_NAMES = {
    "elman": (("i",), ("h",)),
    "gru": (("ir", "iz", "in"), ("hr", "hz", "hn")),
    "lstm": (("ii", "if", "ig", "io"), ("hi", "hf", "hg", "ho")),
}

CONTENDERS = (
    Contender("flax nnx", "jax", build_nnx, flag="nnx", package="flax"),
    Contender("flax linen", "jax", build_linen, flag="linen", package="flax"),
)
