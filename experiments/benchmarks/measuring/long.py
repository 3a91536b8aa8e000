"""Long sequences by `adjoints.checkpointed`: the gradient of a mean over all steps, whose outputs nobody keeps.

    F = mean of l2 losses of ŷ_t = W_o h_t + b_o over time and batch      ∂F/∂θ

Readout and loss are evaluated block by block, forward and back, so what is there beside θ, xs and ys is the rows of the
schedule and one block, not T·B·n numbers.
"""

import time
from typing import NamedTuple, get_args

import jax
import jax.numpy as jnp
import numpy as np

import jaxbptt as jb
from experiments.benchmarks.measuring import peak
from experiments.benchmarks.peers import ours
from experiments.benchmarks.peers import work as works
from experiments.kit.compiler import temporaries
from experiments.kit.options import BadInputError
from experiments.study import Report

SECONDS = 60  # for all calls of one case; what takes longer is called once


class Case(NamedTuple):
    """What to differentiate.

    Attributes:
        cell: which equations.
        shape: (B, T, d, n).
        outputs: m, numbers in ŷ_t.
    """

    cell: works.CellName
    shape: works.Shape
    outputs: int

    def __str__(self):
        return f"{self.cell},{self.shape},{self.outputs}"


class Row(NamedTuple):
    """One case, measured.

    Attributes:
        case: which.
        arguments: bytes of θ, xs and ys.
        temporaries: bytes beside them and the gradient, from the compiler.
        compile_seconds: tracing and compiling, once.
        seconds: ``[calls]``, of one gradient; without the first call where there are several.
        before: bytes resident with the inputs, before the first call.
        peak: the most resident while running.
    """

    case: Case
    arguments: int
    temporaries: int | None
    compile_seconds: float
    seconds: np.ndarray
    before: int
    peak: int


def case(text: str) -> Case:
    """A case as the command line has it.

    >>> case("lstm,16,100000,64,64,1")
    Case(cell='lstm', shape=Shape(B=16, T=100000, d=64, n=64), outputs=1)

    Raises:
        BadInputError: unless it is a cell and five positive integers.
    """
    name, *sizes = text.split(",")
    cell = next((known for known in get_args(works.CellName) if known == name), None)
    right = all(size.strip().isdecimal() and int(size) > 0 for size in sizes)
    if cell is None or len(sizes) != 5 or not right:
        raise BadInputError(
            f"a case must be a cell and five positive integers, cell,B,T,d,n,m, such as gru,1,1000,4,16,1: got `{text}`"
        )
    *shape, outputs = map(int, sizes)
    return Case(cell, works.Shape(*shape), outputs)


def gradient_of(case: Case) -> jax.stages.Lowered:
    """``jax.grad`` of F by θ, traced; its arguments are ``(theta, xs, ys)``."""
    (B, T, d, _), m = case.shape, case.outputs
    model = _model(case)
    F = jb.objective(model, jb.losses.l2_loss, adjoint=jb.adjoints.checkpointed())
    theta = jax.eval_shape(lambda: _theta(case, model, 0))
    xs, ys = (jax.ShapeDtypeStruct((T, B, size), jnp.float32) for size in (d, m))
    return jax.jit(jax.grad(F)).lower(theta, xs, ys)


def row(case: Case, seed: int, rounds: int, report: Report) -> Row:
    """Compiled, then called: `rounds` times at most, as `SECONDS` allow, but once.

    Args:
        case: what.
        seed: of θ, xs and ys.
        rounds: the most calls that are timed.
        report: of progress.

    Returns:
        The `Row`.
    """
    stage = f"long, {case}: calls"
    report(stage, 0, rounds, "compiling")
    start = time.perf_counter()
    program = gradient_of(case).compile()
    compile_seconds = time.perf_counter() - start
    rng = np.random.default_rng(seed)
    (B, T, d, _), m = case.shape, case.outputs
    theta = _theta(case, _model(case), seed)
    xs, ys = (jnp.asarray(rng.standard_normal((T, B, size), np.float32)) for size in (d, m))
    arguments = jax.block_until_ready((theta, xs, ys))
    peak.forget()
    before = peak.resident("VmRSS")
    report(stage, 0, rounds, "the first call")
    first = _clock(program, arguments)
    calls = min(rounds, int(SECONDS / first))
    seconds = [first]
    for k in range(calls if calls > 1 else 0):
        report(stage, k, calls, "")
        seconds.append(_clock(program, arguments))
    report(stage, rounds, rounds, "")
    most = peak.resident("VmHWM")
    size = sum(leaf.nbytes for leaf in jax.tree.leaves(arguments))
    timed = np.array(seconds[1:] or seconds)
    return Row(case, size, temporaries(program), compile_seconds, timed, before, most)


def _clock(program, arguments):
    start = time.perf_counter()
    jax.block_until_ready(program(*arguments))
    return time.perf_counter() - start


def _model(case):
    return jb.rnn(ours.CELLS[case.cell](), jb.readouts.linear())


def _theta(case, model, seed):
    _, _, d, n = case.shape
    return model.init(jax.random.key(seed), input_size=d, hidden_size=n, output_size=case.outputs)
