"""The gradients whose cost is asked for: that which keeps everything, and those that keep some states."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import jaxbptt as jb
from experiments.kit import clock
from experiments.kit.compiler import temporaries
from experiments.study import Report
from jaxbptt.checking import GradientMismatchError

CELLS = {"elman": jb.cells.elman, "gru": jb.cells.gru, "lstm": jb.cells.lstm}
ROUNDING = 1e-3  # relative, of a float32 gradient


class Measured(NamedTuple):
    """One program.

    Attributes:
        seconds: ``[rounds]``, NaN for a round without it.
        temporaries: bytes, from the compiler.
        error: of the gradient, the worst of θ_h, xs and h_0, relative; 0 for what has none.
    """

    seconds: np.ndarray
    temporaries: int | None
    error: float


def F(cell: jb.Cell, adjoint: jb.types.Adjoint, theta_h: Any, xs: jax.Array, h_0: Any) -> jax.Array:
    """The mean square of h_T: no other output need be kept."""
    h_T, _ = jb.unroll(cell, theta_h, xs, h_0, adjoint=adjoint)
    return jnp.mean(jnp.square(cell.output(h_T)))


def programs(cell: jb.Cell, slots: tuple[int, ...]) -> dict[str, Callable]:
    """F's gradient that keeps everything, F alone, and the gradient for each number of states kept."""

    def gradient(adjoint):
        return jax.grad(functools.partial(F, cell, adjoint), argnums=(0, 1, 2))

    full = jb.adjoints.full()
    kept = {str(c): gradient(jb.adjoints.checkpointed(slots=c)) for c in sorted(set(slots))}
    return {"full": gradient(full), "forward": functools.partial(F, cell, full), **kept}


def measure(config: Any, report: Report) -> dict[str, Measured]:
    """Every program, checked against ``jax.grad`` of the plain scan, then timed in turns.

    Args:
        config: that of the study.
        report: of progress.

    Returns:
        By name, those of `programs`.

    Raises:
        GradientMismatchError: when a gradient is off by more than the rounding of float32.
    """
    cell, B, T, n = CELLS[config.cell](), config.batch_size, config.steps, config.hidden_size
    keys = jax.random.split(jax.random.key(config.seed), 3)
    theta_h, xs = cell.init(keys[0], n, n), jax.random.normal(keys[1], (T, B, n))
    start = cell.initial_state(theta_h, (B,))
    h_0 = jax.tree.map(lambda h: h + 0.3 * jax.random.normal(keys[2], h.shape), start)
    given = theta_h, xs, h_0
    wanted = jax.jit(jax.grad(functools.partial(F, cell, jb.adjoints.autodiff()), argnums=(0, 1, 2)))(*given)
    compiled, errors, todo = {}, {}, programs(cell, config.slots)
    for k, (name, program) in enumerate(todo.items()):
        report("compiling and checking", k, len(todo), name)
        compiled[name] = jax.jit(program).lower(*given).compile()
        errors[name] = 0.0 if name == "forward" else _error(compiled[name](*given), wanted)
        if not errors[name] <= ROUNDING:
            raise GradientMismatchError(f"{name}: the gradient is off the plain scan's by {errors[name]:.1e}")
    report("compiling and checking", len(todo), len(todo))
    calls = {name: lambda program=program: jax.block_until_ready(program(*given)) for name, program in compiled.items()}
    times = clock.interleaved(calls, config.rounds, config.seconds, functools.partial(report, "rounds"))
    return {name: Measured(times[name], temporaries(compiled[name]), errors[name]) for name in todo}


def _error(found, wanted):
    def of(bar, exact):
        return float(jnp.linalg.norm(bar - exact) / jnp.linalg.norm(exact))

    return max(map(of, jax.tree.leaves(found), jax.tree.leaves(wanted)))
