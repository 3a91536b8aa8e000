"""dm-haiku: ``hk.dynamic_unroll`` of its cores. They differ from everybody else's equations, so:

* Elman: ``hk.VanillaRNN`` has relu for φ. Here it is the same core, of the same two ``hk.Linear``, with tanh; its
  second bias starts at 0, and is left out of the comparison as its gradient is that of the first.
* GRU: the reset gate acts on h before the product, and z and 1 - z change places. With -W_z for W_z the latter is
  undone; the former is another function, compared with a plain scan of that one.
* LSTM: rows i, g, f, o of one matrix for [x, h], and σ(z_f + 1) for the forget gate: with b_f - 1 for b_f it is the
  same function.
"""

import jax.numpy as jnp

from experiments.benchmarks.peers.contender import Built, Contender, arrays, compiled, loss, states
from experiments.benchmarks.peers.work import Work


def build(work: Work) -> Built:
    """``hk.transform``, with parameters put in by name."""
    import haiku as hk  # pyright: ignore[reportMissingImports]

    class Elman(hk.VanillaRNN):
        def __call__(self, inputs, prev_state):
            n = self.hidden_size
            h_t = jnp.tanh(hk.Linear(n, name="x")(inputs) + hk.Linear(n, name="h")(prev_state))
            return h_t, h_t

    core = {
        "elman": lambda: Elman(work.shape.n, name="elman"),
        "gru": lambda: hk.GRU(work.shape.n, name="gru"),
        "lstm": lambda: hk.LSTM(work.shape.n, name="lstm"),
    }[work.cell]
    weights, xs, h_0 = arrays(work)
    pack, unpack = _PACKING[work.cell]

    def outputs(xs, state):
        return hk.dynamic_unroll(core(), xs, state)[0]

    apply = hk.without_apply_rng(hk.transform(outputs)).apply

    def F(params, xs, h_0):
        return loss(apply(params, xs, hk.LSTMState(*h_0) if work.cell == "lstm" else h_0[0]))

    def read(bars):
        return {**unpack(bars["params"]), "xs": bars["xs"], **states(bars["h_0"])}

    return compiled(F, (pack(weights), xs, h_0), {"params": 0, "xs": 1, "h_0": 2}, read)


def _pack_elman(weights):
    hidden = {"w": weights["W_h"].T, "b": jnp.zeros_like(weights["b"])}
    return {"elman/x": {"w": weights["W_x"].T, "b": weights["b"]}, "elman/h": hidden}


def _unpack_elman(params):
    x, h = params["elman/x"], params["elman/h"]
    return {"W_x": x["w"].T, "W_h": h["w"].T, "b": x["b"]}


def _pack_gru(weights):
    def rows(W):
        r, z, n = jnp.split(W, 3)
        return jnp.concatenate([-z, r, n])

    return {"gru": {"w_i": rows(weights["W_x"]).T, "w_h": rows(weights["W_h"]).T, "b": rows(weights["b"])}}


def _unpack_gru(params):
    def rows(W):
        z, r, n = jnp.split(W, 3)
        return jnp.concatenate([r, -z, n])

    own = params["gru"]
    return {"W_x": rows(own["w_i"].T), "W_h": rows(own["w_h"].T), "b": rows(own["b"])}


def _middle_swapped(W):
    """Rows i, f, g, o as i, g, f, o, and back."""
    first, second, third, fourth = jnp.split(W, 4)
    return jnp.concatenate([first, third, second, fourth])


def _pack_lstm(weights):
    n = weights["W_h"].shape[1]
    b = weights["b"].at[n : 2 * n].add(-1)
    w = jnp.concatenate([weights["W_x"], weights["W_h"]], axis=1)
    return {"lstm/linear": {"w": _middle_swapped(w).T, "b": _middle_swapped(b)}}


def _unpack_lstm(params):
    own = params["lstm/linear"]
    w = _middle_swapped(own["w"].T)
    n = w.shape[0] // 4
    return {"W_x": w[:, :-n], "W_h": w[:, -n:], "b": _middle_swapped(own["b"])}


_PACKING = {
    "elman": (_pack_elman, _unpack_elman),
    "gru": (_pack_gru, _unpack_gru),
    "lstm": (_pack_lstm, _unpack_lstm),
}

CONTENDERS = (Contender("haiku", "jax", build, flag="haiku", package="dm-haiku", differs=("gru",)),)
