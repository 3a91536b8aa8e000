"""cuDNN's LSTM as ``jax.experimental.rnn`` has it: batch first, all weights in one vector. On an NVIDIA GPU only.

That module is experimental: it may move or go. Whatever goes wrong here leaves this contender out, and says so.
"""

from typing import Any

import jax
import jax.numpy as jnp

from experiments.benchmarks.peers.contender import Built, Contender, LeftOutError, arrays, compiled, loss, states
from experiments.benchmarks.peers.work import Work


def build(work: Work) -> Built:
    """Compiled, on the GPU."""
    if jax.default_backend() != "gpu":
        raise LeftOutError("needs a GPU")
    return compiled(*problem(work))


def problem(work: Work) -> tuple:
    """What `compiled` takes. The vector is W_x, W_h and both biases, the second 0."""
    try:
        from jax.experimental import rnn
    except ImportError as error:
        raise LeftOutError(f"this JAX has no jax.experimental.rnn: {error}") from None
    lstm: Any = rnn.lstm
    B, T, d, n = work.shape
    weights, xs, h_0 = arrays(work)
    parts = [weights["W_x"], weights["W_h"], weights["b"], jnp.zeros_like(weights["b"])]
    ends = [4 * n * d, 4 * n * (d + n), 4 * n * (d + n + 1)]
    lengths = jnp.full((B,), T, jnp.int32)

    def F(vector, xs, h_0):
        h, c = (part[None] for part in h_0)
        return loss(lstm(xs, h, c, vector, lengths, d, n, 1, 0.0, False)[0])

    def read(bars):
        W_x, W_h, b, _ = jnp.split(bars["vector"], ends)
        found = {"W_x": W_x.reshape(4 * n, d), "W_h": W_h.reshape(4 * n, n), "b": b}
        return {**found, "xs": jnp.swapaxes(bars["xs"], 0, 1), **states(bars["h_0"])}

    arguments = (jnp.concatenate([part.ravel() for part in parts]), jnp.swapaxes(xs, 0, 1), h_0)
    return F, arguments, {"vector": 0, "xs": 1, "h_0": 2}, read


CONTENDERS = (Contender("cuDNN by jax", "jax", build, flag="cudnn", cells=("lstm",)),)
