"""equinox: ``eqx.nn.GRUCell`` and ``LSTMCell`` in a scan over time, vmapped over the batch, as its documentation does.

Equations as ours; of the GRU's second bias there are the rows n. There is no Elman cell.
"""

import jax
import jax.numpy as jnp

from experiments.benchmarks.peers.contender import Built, Contender, arrays, compiled, loss, states
from experiments.benchmarks.peers.work import Work


def build(work: Work) -> Built:
    """The cell is the pytree of its parameters."""
    import equinox as eqx  # pyright: ignore[reportMissingImports]

    weights, xs, h_0 = arrays(work)
    own = {"weight_ih": weights["W_x"], "weight_hh": weights["W_h"], "bias": weights["b"]}
    if work.cell == "gru":
        own["bias_n"] = weights["b_h"][2 * work.shape.n :]
    make = eqx.nn.LSTMCell if work.cell == "lstm" else eqx.nn.GRUCell
    cell = make(work.shape.d, work.shape.n, key=jax.random.key(0))
    cell = eqx.tree_at(lambda cell: [getattr(cell, name) for name in own], cell, list(own.values()))

    def outputs(cell, xs, h_0):
        def step(state, x_t):
            state = cell(x_t, state)
            return state, state[0] if work.cell == "lstm" else state

        return jax.lax.scan(step, h_0, xs)[1]

    def F(cell, xs, h_0):
        return loss(jax.vmap(outputs, in_axes=(None, 1, 0), out_axes=1)(cell, xs, h_0))

    def read(bars):
        own = bars["cell"]
        found = {"W_x": own.weight_ih, "W_h": own.weight_hh, "b": own.bias, "xs": bars["xs"]}
        if work.cell == "gru":
            return {**found, "b_hn": own.bias_n, "h_0": bars["h_0"]}
        return {**found, **states(bars["h_0"])}

    state = h_0 if work.cell == "lstm" else h_0[0]
    arguments = (jax.tree.map(jnp.asarray, cell), xs, state)
    return compiled(F, arguments, {"cell": 0, "xs": 1, "h_0": 2}, read)


CONTENDERS = (Contender("equinox", "jax", build, flag="equinox", package="equinox", cells=("gru", "lstm")),)
