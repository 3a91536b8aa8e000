"""Gradients of sequences as they come: what lengths cost and save, layer by layer against all at once, two directions.

lengths       all of T, beside none given                             LSTM, d = n
half          lengths of T/2 on average, batches of similar ones, beside all of T
layers        three, each over all of its sequence, beside `cells.stacked`
directions    two layers of two directions, beside torch's packed and flax's, T/2 on average
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import jaxbptt as jb
from experiments.benchmarks.measuring import online
from experiments.benchmarks.measuring.online import Costs
from experiments.kit import clock
from experiments.study import Report

SIZE = 128  # n, for which there are marks
_STEPS, _BATCH, _BATCHES = 256, 32, 8
_LOSS = jb.losses.l2_loss


def lengths(size: int, seed: int, rounds: int, limit: float, report: Report) -> Costs:
    """A gradient with ``lengths`` that are all T, beside one without."""
    F, given = _problem(jb.rnn(jb.cells.lstm(), jb.readouts.linear()), size, seed)
    whole = jnp.full(_BATCH, _STEPS)
    calls = {"with lengths": functools.partial(F, *given, lengths=whole), "without": functools.partial(F, *given)}
    return _timed("lengths", size, calls, rounds, limit, report)


def half(size: int, seed: int, rounds: int, limit: float, report: Report) -> Costs:
    """Batches of similar lengths, T/2 on average, beside the same batches with all of T real; the mean of a batch."""
    F, given = _problem(jb.rnn(jb.cells.lstm(), jb.readouts.linear()), size, seed)
    each, whole = _batches(seed), jnp.full(_BATCH, _STEPS)
    calls = {
        "T/2 on average": lambda: [F(*given, lengths=one) for one in each],
        "all of T": lambda: [F(*given, lengths=whole) for _ in each],
    }
    return _timed("half of the steps", size, calls, rounds, limit, report, batches=len(each))


def layers(size: int, seed: int, rounds: int, limit: float, report: Report) -> Costs:
    """Three layers by ``jb.rnn((…))`` and by `cells.stacked`, of the same θ."""
    cells, calls = (jb.cells.lstm(),) * 3, {}
    for name, cell in (("layers", cells), ("stacked", jb.cells.stacked(*cells))):
        F, given = _problem(jb.rnn(cell, jb.readouts.linear()), size, seed)
        calls[name] = functools.partial(F, *given)
    return _timed("three layers", size, calls, rounds, limit, report)


def directions(size: int, seed: int, rounds: int, limit: float, report: Report) -> Costs:
    """Two layers of two directions on batches of T/2 on average, beside torch and flax where they are installed."""
    layer, each = jb.bidirectional(jb.cells.lstm()), _batches(seed)
    F, given = _problem(jb.rnn((layer, layer), jb.readouts.linear()), size, seed)
    calls: dict[str, Callable[[], Any]] = {"jaxbptt": lambda: [F(*given, lengths=one) for one in each]}
    xs, ys = given[1:]
    for name, make in (("torch, packed", _torch), ("flax nnx, Bidirectional", _flax)):
        try:
            calls[name] = make(size, np.asarray(xs), np.asarray(ys), [np.asarray(one) for one in each])
        except ImportError:
            continue
    return _timed("two directions", size, calls, rounds, limit, report, batches=len(each))


COSTS = {"lengths": lengths, "half": half, "layers": layers, "directions": directions}
"""By name."""


def _problem(model, size, seed):
    """The jitted gradient of F by θ, and θ, xs and ys for it."""
    theta = model.init(jax.random.key(seed), input_size=size, hidden_size=size, output_size=4)
    rng = np.random.default_rng(seed)
    xs, ys = (jnp.asarray(rng.standard_normal((_STEPS, _BATCH, d), np.float32)) for d in (size, 4))
    return jax.jit(jax.grad(jb.objective(model, _LOSS))), (theta, xs, ys)


def _batches(seed):
    """Lengths uniform on 1 … T, sorted, then batch by batch."""
    drawn = np.random.default_rng(seed).integers(1, _STEPS + 1, _BATCH * _BATCHES)
    return [jnp.asarray(drawn[batch]) for batch in jb.sequences.bucket(drawn, _BATCH)]


def _torch(size, xs, ys, each):
    import torch  # pyright: ignore[reportMissingImports]

    network = torch.nn.LSTM(size, size, num_layers=2, bidirectional=True)
    readout = torch.nn.Linear(2 * size, 4)
    inputs, targets = torch.tensor(xs), torch.tensor(ys)
    parameters = [*network.parameters(), *readout.parameters()]

    def run():
        for one in each:
            lengths = torch.tensor(one)
            packed = torch.nn.utils.rnn.pack_padded_sequence(inputs, lengths, enforce_sorted=False)
            wanted = torch.nn.utils.rnn.pack_padded_sequence(targets, lengths, enforce_sorted=False)
            outputs, _ = network(packed)
            loss = 0.5 * torch.sum((readout(outputs.data) - wanted.data) ** 2) / len(outputs.data)
            torch.autograd.grad(loss, parameters)

    return run


def _flax(size, xs, ys, each):
    from flax import nnx  # pyright: ignore[reportMissingImports]

    def both(key, inputs):
        cells = [nnx.OptimizedLSTMCell(inputs, size, rngs=nnx.Rngs(key + k)) for k in range(2)]
        forward, backward = nnx.RNN(cells[0]), nnx.RNN(cells[1], reverse=True, keep_order=True)
        return nnx.Bidirectional(forward, backward, time_major=True)

    network = nnx.List([both(0, size), both(2, 2 * size)])
    readout = nnx.Linear(2 * size, 4, rngs=nnx.Rngs(4))
    inputs, targets = jnp.asarray(xs), jnp.asarray(ys)

    @nnx.jit
    def gradient(modules, lengths):
        def F(modules):
            network, readout = modules
            z = inputs
            for layer in network:
                z = layer(z, seq_lengths=lengths)
            real = jnp.arange(_STEPS)[:, None] < lengths
            Ls = 0.5 * jnp.sum((readout(z) - targets) ** 2, axis=-1)
            return jnp.sum(jnp.where(real, Ls, 0)) / jnp.sum(real)

        return nnx.grad(F)(modules)

    modules, each = nnx.List([network, readout]), [jnp.asarray(one) for one in each]
    return lambda: [jax.tree.leaves(nnx.state(gradient(modules, one))) for one in each]


def _timed(what, size, calls, rounds, limit, report, batches=1):
    waited = {name: functools.partial(online.wait_for, call) for name, call in calls.items()}
    for call in waited.values():
        call()  # compiles

    def progress(k: int, total: int) -> None:
        return report(f"sequences, {what}: rounds", k, total)

    found = clock.interleaved(waited, rounds, limit, progress)
    return Costs(what, size, {name: seconds / batches for name, seconds in found.items()}, {})
