"""Estimators that read a stream: what a step costs beside what it stands against, and that memory doesn't grow with T.

uoro                a forward step with its loss, in a loop          GRU, n
snap(order=1)       dense rtrl                                       GRU, 2n, 90% of its weights fixed at zero
rtrl                a_t = c_t a_{t-1} alone, c_t given               GRU, n
rtrl                its |θ_h|                                        h_t = tanh(u∘h_{t-1} + W x_t + b), d = n … 8n
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

import jaxbptt as jb
from experiments.benchmarks.measuring import peak
from experiments.kit import clock
from experiments.study import Report

SIZE = 64  # n, for which there are marks
STEPS = 100  # of one timed call
CHUNK = 1000  # of a stream, in steps
_UNITS, _INPUTS, _WINDOW = 16, 4, 20  # of streams
_DIAGONAL = (1, 2, 4, 8)


class Costs(NamedTuple):
    """What was timed in turns.

    Attributes:
        what: which estimator, of which cell.
        size: n.
        seconds: ``[rounds]`` of a step, by name.
        parameters: |θ_h|, by name.
    """

    what: str
    size: int
    seconds: dict[str, np.ndarray]
    parameters: dict[str, int]


class Stream(NamedTuple):
    """A stream of chunks by one estimator.

    Attributes:
        estimator: which.
        steps: of the stream.
        us_a_step: over all of them.
        first: the most bytes resident over two chunks.
        peak: the most over all of them.
    """

    estimator: str
    steps: int
    us_a_step: float
    first: int
    peak: int


def uoro(size: int, seed: int, rounds: int, limit: float, report: Report) -> Costs:
    """An update by `uoro` beside the forward pass of the same steps, one by one and as `jaxbptt.objective` has it."""
    model, theta, xs, ys = _problem(jb.cells.gru(), size, seed)
    return _timed(
        "uoro, GRU",
        size,
        {
            "uoro": _update(jb.estimators.uoro(model, jb.losses.l2_loss), theta, xs, ys),
            "forward step": functools.partial(_forward, model, theta, xs, ys),
            "objective": functools.partial(jax.jit(jb.objective(model, jb.losses.l2_loss)), theta, xs, ys),
        },
        theta, rounds, limit, report,
    )  # fmt: skip


def snap(size: int, seed: int, rounds: int, limit: float, report: Report) -> Costs:
    """An update by `snap` of a sparse cell beside `rtrl` of the same."""
    cell, rng = jb.cells.gru(), np.random.default_rng(seed)
    shapes = cell.init(jax.random.key(0), size, size)
    kept: list[Any] = [rng.random(leaf.shape) < 0.1 if leaf.ndim == 2 else None for leaf in shapes]
    masks = jb.cells.GRUParams(*kept)
    model, theta, xs, ys = _problem(jb.cells.sparse(cell, masks), size, seed)
    estimators = {
        "snap(order=1)": jb.estimators.snap(model, jb.losses.l2_loss, order=1),
        "rtrl": jb.estimators.rtrl(model, jb.losses.l2_loss),
    }
    calls = {name: _update(estimator, theta, xs, ys) for name, estimator in estimators.items()}
    return _timed("snap, sparse GRU", size, calls, theta, rounds, limit, report)


def product(size: int, seed: int, rounds: int, limit: float, report: Report) -> Costs:
    """An update by `rtrl` beside the product with c_t that is in it."""
    model, theta, xs, ys = _problem(jb.cells.gru(), size, seed)
    P = sum(leaf.size for leaf in theta.h)
    rng = np.random.default_rng(seed)
    cs = jnp.asarray(rng.standard_normal((STEPS, size, size), np.float32) / size**0.5)
    a_0 = jnp.asarray(rng.standard_normal((size, P), np.float32))
    calls = {
        "rtrl": _update(jb.estimators.rtrl(model, jb.losses.l2_loss), theta, xs, ys),
        "c a": functools.partial(_products, cs, a_0),
    }
    return _timed("rtrl, GRU", size, calls, theta, rounds, limit, report)


def diagonal(size: int, seed: int, rounds: int, limit: float, report: Report) -> Costs:
    """Updates by `rtrl` of a diagonal cell, d = n."""
    calls, parameters = {}, {}
    for times in _DIAGONAL:
        n = times * size
        model, theta, xs, ys = _problem(_diagonal_cell(), n, seed)
        calls[f"n = {n}"] = _update(jb.estimators.rtrl(model, jb.losses.l2_loss), theta, xs, ys)
        parameters[f"n = {n}"] = sum(leaf.size for leaf in jax.tree.leaves(theta.h))
    seconds = _clocked(calls, rounds, limit, report, "rtrl, diagonal")
    return Costs("rtrl, diagonal", size, seconds, parameters)


COSTS: dict[str, tuple[Callable[..., Costs], int]] = {
    "uoro": (uoro, 1),
    "snap": (snap, 2),
    "product": (product, 1),
    "diagonal": (diagonal, 1),
}
"""By name: the function, and its size as a multiple of the flag's."""


def exponent(costs: Costs) -> float:
    """Of |θ_h| in the time of a step, by regression of the logarithms.

    >>> costs = Costs("rtrl", 8, {"a": np.ones(3), "b": 2 * np.ones(3)}, {"a": 10, "b": 20})
    >>> round(exponent(costs), 6)
    1.0
    """
    medians = [clock.spread(seconds).median for seconds in costs.seconds.values()]
    return float(np.polyfit(np.log([costs.parameters[name] for name in costs.seconds]), np.log(medians), 1)[0])


def streamed() -> dict[str, jb.GradientEstimator]:
    """The estimators of one Elman network that reads a stream."""
    make, loss = jb.estimators, jb.losses.l2_loss
    model = _elman()
    return {
        "bptt, chunks": make.bptt(model, loss),
        "windowed": make.windowed(model, loss, window=_WINDOW),
        "randomised": make.randomised(model, loss),
        "adaptive": make.adaptive(model, loss, max_window=_WINDOW),
        "rtrl": make.rtrl(model, loss),
        "snap(order=1)": make.snap(model, loss, order=1),
        "uoro": make.uoro(model, loss),
        "kf_rtrl": make.kf_rtrl(model, loss),
        "rflo": make.rflo(model, loss),
        "eprop": make.eprop(model, loss),
    }


def stream(name: str, steps: int, seed: int, report: Report) -> Stream:
    """A stream in chunks of `CHUNK` steps, x and y drawn where they are read.

    Args:
        name: of `streamed`.
        steps: rounded up to chunks, two at least.
        seed: of θ, the stream and the estimator.
        report: of progress.

    Returns:
        The `Stream`.
    """
    estimator, model = streamed()[name], _elman()
    theta = model.init(jax.random.key(seed), input_size=_INPUTS, hidden_size=_UNITS, output_size=1)
    state = estimator.init(theta, model.initial_state(theta))
    program = jax.jit(functools.partial(_chunk, estimator), donate_argnums=1)
    key, chunks = jax.random.key(seed), max(2, -(-steps // CHUNK))

    def one(k):
        nonlocal state
        loss, state = program(theta, state, jax.random.fold_in(key, k))
        jax.block_until_ready(loss)

    one(0)
    one(1)
    peak.forget()
    one(0)
    one(1)
    first = peak.resident("VmHWM")
    peak.forget()
    every = range(chunks)
    seconds = clock.clock(lambda: [_reported(one, k, chunks, name, report) for k in every], 1)
    return Stream(name, chunks * CHUNK, 1e6 * seconds / (chunks * CHUNK), first, peak.resident("VmHWM"))


def _reported(one, k, chunks, name, report):
    one(k)
    report(f"estimators, {name}: chunks", k + 1, chunks)


def _chunk(estimator, theta, state, key):
    of_xs, of_ys, of_draws = jax.random.split(key, 3)
    xs, ys = jax.random.normal(of_xs, (CHUNK, _INPUTS)), jax.random.normal(of_ys, (CHUNK, 1))
    estimate, state = estimator.update(theta, state, xs, ys, key=of_draws)
    return (estimate.loss, estimate.grads), state


def _elman():
    return jb.rnn(jb.cells.elman(), jb.readouts.linear())


def _problem(cell, size, seed) -> tuple[Any, ...]:
    model = jb.rnn(cell, jb.readouts.linear())
    theta = model.init(jax.random.key(seed), input_size=size, hidden_size=size, output_size=1)
    rng = np.random.default_rng(seed)
    xs, ys = (jnp.asarray(rng.standard_normal((STEPS, d), np.float32)) for d in (size, 1))
    return model, theta, xs, ys


def _update(estimator, theta, xs, ys):
    """A call of ``update`` on one chunk of a stream, from the state that the one before it left."""
    program = jax.jit(estimator.update)
    _, state = program(theta, estimator.init(theta), xs, ys, key=jax.random.key(0))
    return functools.partial(program, theta, state, xs, ys, key=jax.random.key(1))


@functools.partial(jax.jit, static_argnums=0)
def _forward(model, theta, xs, ys):
    def step(carry, inputs):
        (h_tm1, F), (x_t, y_t) = carry, inputs
        y_hat_t, h_t = model.step(theta, x_t, h_tm1)
        return (h_t, F + jnp.mean(jb.losses.l2_loss(y_hat_t, y_t))), None

    begun = model.initial_state(theta), jnp.zeros((), xs.dtype)
    return lax.scan(step, begun, (xs, ys))[0]


@jax.jit
def _products(cs, a_0):
    return lax.scan(lambda a_tm1, c_t: (c_t @ a_tm1, None), a_0, cs)[0]


def _diagonal_cell():
    return jb.cells.from_step(_diagonal_step, _diagonal_init, _at_rest, jacobian="diagonal")


def _diagonal_step(theta_h, x_t, h_tm1):
    return jnp.tanh(theta_h["u"] * h_tm1 + x_t @ theta_h["W"].T + theta_h["b"])


def _diagonal_init(key, d, n, dtype=jnp.float32):
    return {
        "W": jb.initializers.glorot_uniform(key, (n, d), dtype),
        "u": jnp.full(n, 0.9, dtype),
        "b": jnp.zeros(n, dtype),
    }


def _at_rest(theta_h, batch_shape=()):
    return jnp.zeros((*batch_shape, len(theta_h["u"])), theta_h["u"].dtype)


def _timed(what, size, calls, theta, rounds, limit, report):
    seconds = _clocked(calls, rounds, limit, report, what)
    P = sum(leaf.size for leaf in jax.tree.leaves(theta.h))
    return Costs(what, size, seconds, dict.fromkeys(calls, P))


def _clocked(calls, rounds, limit, report, what):
    waited = {name: functools.partial(wait_for, call) for name, call in calls.items()}
    for call in waited.values():
        call()  # compiles
    found = clock.interleaved(waited, rounds, limit, lambda k, total: report(f"estimators, {what}: rounds", k, total))
    return {name: seconds / STEPS for name, seconds in found.items()}


def wait_for(call: Callable[[], Any]) -> None:
    """Calls it, and waits for what it returns."""
    jax.block_until_ready(call())
