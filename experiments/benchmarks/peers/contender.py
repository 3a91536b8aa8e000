"""Somebody who computes the `experiments.benchmarks.peers.work.Work`, and the same for everybody who uses JAX."""

import time
from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments.benchmarks.peers.work import CellName, Work
from experiments.kit.compiler import temporaries

Gradient = dict[str, np.ndarray]
"""By name: ``F``, ``W_x``, ``W_h``, ``b``, ``b_hn`` (rows n of the GRU's second bias; its others have the gradient of
``b``), ``xs``, ``h_0``, ``c_0``. A library that has no such parameter leaves it away."""


class LeftOutError(Exception):
    """This contender can't do this work; the message says why."""


class Built(NamedTuple):
    """Ready to be timed: compiled, everything on the device.

    Attributes:
        run: F and gradient, once; may return before they are there.
        wait: takes what `run` returned, and returns when it is there.
        gradient: the same as a `Gradient`.
        compile_seconds: tracing and compiling; ``None`` for what isn't compiled.
        temporaries: bytes the program needs besides arguments and results; ``None`` where nobody says.
    """

    run: Callable[[], Any]
    wait: Callable[[Any], Any]
    gradient: Callable[[Any], Gradient]
    compile_seconds: float | None
    temporaries: int | None


class Contender(NamedTuple):
    """One way to do the work.

    Attributes:
        name: in tables and in ``result.json``.
        kind: ``"ours"``, a ``"jax"`` peer, or ``"other"``.
        build: ``Work -> Built``; raises `LeftOutError` for work that it can't do.
        flag: what ``--adjoints`` or ``--peers`` calls it.
        package: the distribution that must be installed; ``None`` for what is always there.
        split: whether it splits the batch over all devices itself.
        cells: the cells it has.
        differs: the cells that are another function than everybody else's: a GRU with tanh(W_h (r ∘ h)).
        tolerance: how far its gradient may be off before it counts as wrong, when it computes in less than float32.
    """

    name: str
    kind: Literal["ours", "jax", "other"]
    build: Callable[[Work], Built]
    flag: str
    package: str | None = None
    split: bool = False
    cells: tuple[CellName, ...] = ("elman", "gru", "lstm")
    differs: tuple[CellName, ...] = ()
    tolerance: float | None = None


def arrays(work: Work) -> tuple[dict[str, jax.Array], jax.Array, tuple[jax.Array, ...]]:
    """``(weights, xs, h_0)`` on the device."""
    return jax.tree.map(jnp.asarray, (work.weights, work.xs, work.h_0))


def loss(hs):
    """F of the outputs."""
    return jnp.mean(jnp.square(hs))


def compiled(
    function: Callable, arguments: tuple, wanted: Mapping[str, int], read: Callable[[dict[str, Any]], Mapping[str, Any]]
) -> Built:
    """A function with F for its value, differentiated, compiled and ready.

    Args:
        function: ``(*arguments) -> F``.
        arguments: on the device.
        wanted: the arguments to differentiate by: what to call each, and its position.
        read: from the gradients by these names to the entries of a `Gradient`.

    Returns:
        A `Built`. Calls go through ``jax.jit`` as a user's would; compiling is timed ahead of the first of them.
    """
    jitted = jax.jit(jax.value_and_grad(function, argnums=tuple(wanted.values())))
    jax.block_until_ready(arguments)
    start = time.perf_counter()
    program = jitted.lower(*arguments).compile()
    seconds = time.perf_counter() - start

    def gradient(result):
        F, bars = result
        named = read(dict(zip(wanted, bars, strict=True)))
        return {"F": np.asarray(F), **{name: np.asarray(bar) for name, bar in named.items()}}

    return Built(lambda: jitted(*arguments), jax.block_until_ready, gradient, seconds, temporaries(program))


def states(h_0: tuple) -> dict[str, Any]:
    """``{"h_0": …}``, with ``"c_0"`` for the LSTM."""
    return dict(zip(("h_0", "c_0"), h_0, strict=False))
