"""``jax.grad`` of a ``jax.lax.scan``: no library at all. Also the reference for everybody's gradient."""

import functools
from collections.abc import Callable
from typing import Literal

import jax
import jax.numpy as jnp

from experiments.benchmarks.peers.contender import Built, Contender, Gradient, arrays, compiled, loss, states
from experiments.benchmarks.peers.work import Work


def elman(weights, u_t, state):
    """h_t = tanh(u_t + W_h h_{t-1})."""
    return (jnp.tanh(u_t + state[0] @ weights["W_h"].T),)


def gru(weights, u_t, state):
    """r, z = σ(u + v), n = tanh(u_n + r ∘ v_n), h_t = (1 - z) ∘ n + z ∘ h_{t-1};  v = W_h h_{t-1} + b_h."""
    u_r, u_z, u_n = jnp.split(u_t, 3, axis=-1)
    v_r, v_z, v_n = jnp.split(state[0] @ weights["W_h"].T + weights["b_h"], 3, axis=-1)
    r, z = jax.nn.sigmoid(u_r + v_r), jax.nn.sigmoid(u_z + v_z)
    return ((1 - z) * jnp.tanh(u_n + r * v_n) + z * state[0],)


def gru_reset_before(weights, u_t, state):
    """As `gru` but n = tanh(u_n + W_hn (r ∘ h_{t-1})): the reset gate acts before the product."""
    W_hr, W_hz, W_hn = jnp.split(weights["W_h"], 3)
    u_r, u_z, u_n = jnp.split(u_t, 3, axis=-1)
    (h,) = state
    r, z = jax.nn.sigmoid(u_r + h @ W_hr.T), jax.nn.sigmoid(u_z + h @ W_hz.T)
    return ((1 - z) * jnp.tanh(u_n + (r * h) @ W_hn.T) + z * h,)


def lstm(weights, u_t, state):
    """i, f, o = σ, g = tanh of u + W_h h_{t-1};  c_t = f ∘ c_{t-1} + i ∘ g,  h_t = o ∘ tanh(c_t)."""
    h, c = state
    i, f, g, o = jnp.split(u_t + h @ weights["W_h"].T, 4, axis=-1)
    c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
    return jax.nn.sigmoid(o) * jnp.tanh(c), c


_STEPS = {"elman": elman, "gru": gru, "lstm": lstm}


def built(work: Work, step: Callable, product: Literal["inside", "outside"]) -> Built:
    """The scan of a step, with the product W_x x_t inside of it or before it."""

    def project(weights, xs):
        return xs @ weights["W_x"].T + weights["b"]

    def F(weights, xs, h_0):
        def body(state, inputs):
            state = step(weights, project(weights, inputs) if product == "inside" else inputs, state)
            return state, state[0]

        last, hs = jax.lax.scan(body, h_0, xs if product == "inside" else project(weights, xs))
        return loss(hs) if work.reads == "all" else loss(last[0])

    def read(bars):
        weights = dict(bars["weights"])
        if "b_h" in weights:
            weights["b_hn"] = weights.pop("b_h")[2 * work.shape.n :]
        if step is gru_reset_before:
            del weights["b_hn"]  # not read
        return {**weights, **states(bars["h_0"]), "xs": bars["xs"]}

    return compiled(F, arrays(work), {"weights": 0, "xs": 1, "h_0": 2}, read)


def reference(work: Work, reset_before: bool = False) -> Gradient:
    """F and its gradient by the plain scan with the product inside; of the usual GRU, or of that with W_h (r ∘ h).

    Its products are in float32 also where an accelerator would round their operands.
    """
    step = gru_reset_before if reset_before else _STEPS[work.cell]
    with jax.default_matmul_precision("float32"):
        own = built(work, step, "inside")
        return own.gradient(own.wait(own.run()))


def _build(product, work):
    return built(work, _STEPS[work.cell], product)


CONTENDERS = (
    Contender("scan", "jax", functools.partial(_build, "inside"), flag="scan"),
    Contender("hoisted scan", "jax", functools.partial(_build, "outside"), flag="hoisted-scan"),
)
