"""This library: every adjoint, on one device and with the batch split over all of them."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

import jaxbptt as jb
from experiments.benchmarks.peers import contender
from experiments.benchmarks.peers.contender import Built, Contender, LeftOutError, arrays, compiled, states
from experiments.benchmarks.peers.work import Work

CELLS = {"elman": jb.cells.elman, "gru": jb.cells.gru, "lstm": jb.cells.lstm}
PARALLEL_BYTES = 2**28  # of the matrices c_t that `adjoints.parallel` writes out; beyond, it is left out


def mean_square(y_hat_t, y_t):
    """L: the mean of the squares of h_t, whatever y_t."""
    return jnp.mean(jnp.square(y_hat_t), axis=-1)


def _layer(cell: jb.Cell) -> jb.Model:
    return jb.rnn(cell, jb.readouts.identity())


def theta_of(work: Work, weights) -> jb.Theta:
    """θ of the model of one layer, of the same numbers."""
    if work.cell == "gru":
        theta_h = jb.cells.GRUParams(weights["W_x"], weights["W_h"], b_x=weights["b"], b_h=weights["b_h"])
    else:
        theta_h = (jb.cells.LSTMParams if work.cell == "lstm" else jb.cells.ElmanParams)(**weights)
    return jb.Theta(h=theta_h, o=())


def gradient_of(work: Work, bars) -> dict[str, jax.Array]:
    """The entries of a `Gradient` from the gradients by θ, h_0 and xs."""
    theta_h = bars["theta"].h._asdict()
    if work.cell == "gru":
        theta_h["b"], theta_h["b_hn"] = theta_h.pop("b_x"), theta_h.pop("b_h")[2 * work.shape.n :]
    h_0 = bars["h_0"] if work.cell == "lstm" else (bars["h_0"],)
    return {**theta_h, **states(h_0), "xs": bars["xs"]}


def build(work: Work, *, adjoint: Callable, split: bool = False, model: Callable = _layer) -> Built:
    """F through `jaxbptt.objective`, and through `jaxbptt.data_parallel` with `split`.

    Args:
        work: what to compute.
        adjoint: a factory of the adjoint.
        split: whether to split the batch over all devices.
        model: from a cell to the model of one layer, for a policy on the model.

    Returns:
        The `Built`.
    """
    weights, xs, h_0 = arrays(work)
    cell = CELLS[work.cell]()
    h_0 = jb.cells.LSTMState(*h_0) if work.cell == "lstm" else h_0[0]
    theta = theta_of(work, weights)
    read = functools.partial(gradient_of, work)
    if work.reads == "last":

        def last(theta, xs, h_0):
            h_T, _ = jb.unroll(cell, theta.h, xs, h_0, adjoint=adjoint())
            return contender.loss(cell.output(h_T))

        return compiled(last, (theta, xs, h_0), {"theta": 0, "xs": 1, "h_0": 2}, read)
    F = jb.objective(model(cell), mean_square, adjoint=adjoint())
    ys = jnp.zeros(xs.shape[:2])
    if split:
        devices = jax.devices()
        if work.shape.B % len(devices):
            raise LeftOutError(f"a batch of {work.shape.B} does not divide over {len(devices)} devices")
        F = jb.data_parallel(F)
        mesh = Mesh(np.array(devices), ("batch",))

        def place(tree, *spec):
            return jax.device_put(tree, NamedSharding(mesh, P(*spec)))

        theta, xs, ys, h_0 = place(theta), place(xs, None, "batch"), place(ys, None, "batch"), place(h_0, "batch")
    return compiled(F, (theta, xs, ys, h_0), {"theta": 0, "xs": 1, "h_0": 3}, read)


def _build_parallel(work: Work) -> Built:
    B, T, _, n = work.shape
    size = 4 * B * T * (n * (1 + (work.cell == "lstm"))) ** 2
    if size > PARALLEL_BYTES:
        raise LeftOutError(f"the matrices c_t would take {size / 2**30:.1f} GiB")
    return build(work, adjoint=jb.adjoints.parallel)


def ours(
    flag: str, adjoint: Callable, *, split: bool = False, model: Callable = _layer, tolerance: float | None = None
) -> Contender:
    """A contender of this library: a line a piece below."""
    name = f"{flag}, split" if split else flag
    make = functools.partial(build, adjoint=adjoint, split=split, model=model)
    return Contender(name, "ours", make, flag=flag, split=split, tolerance=tolerance)


def _layer_in_bfloat16(cell: jb.Cell) -> jb.Model:
    return jb.rnn(cell, jb.readouts.identity(), policy=jb.policies.mixed_precision())


_STATES = functools.partial(jb.adjoints.full, residuals="states")
_in_bfloat16 = functools.partial(ours, "bfloat16", jb.adjoints.full, model=_layer_in_bfloat16, tolerance=0.2)

CONTENDERS = (
    ours("full", jb.adjoints.full),
    ours("full-states", _STATES),
    ours("checkpointed", jb.adjoints.checkpointed),
    ours("tangent", jb.adjoints.tangent),
    ours("autodiff", jb.adjoints.autodiff),
    Contender("parallel", "ours", _build_parallel, flag="parallel"),
    _in_bfloat16(),
    ours("full", jb.adjoints.full, split=True),
    ours("full-states", _STATES, split=True),
    ours("checkpointed", jb.adjoints.checkpointed, split=True),
    _in_bfloat16(split=True),
)
