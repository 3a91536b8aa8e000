"""Backpropagation through time, by hand: the double sum from right to left.

    h_t = f(x_t, h_{t-1}; θ_h),   b_t = ∂f(x_t, h_{t-1}; θ_h)/∂θ_h,   c_t = ∂f(x_t, h_{t-1}; θ_h)/∂h_{t-1}

With h_bar_t the cotangent that reaches h_t from outside the recursion (through the readout):

 1. h_t reaches F directly, and through h_{t+1} only. Its cotangent along both paths:
        delta_t = h_bar_t + c_{t+1}ᵀ delta_{t+1},      delta_T = h_bar_T.
 2. θ_h enters every step. Step t's copy reaches F through h_t only:
        ∂F/∂θ_h = Σ_t b_tᵀ delta_t.
 3. Likewise ∂F/∂x_t = (∂f/∂x_t)ᵀ delta_t and ∂F/∂h_0 = c_1ᵀ delta_1.

Only 1. is sequential (`jaxbptt._time.sweeps.reverse`). The reverse scan carries delta and nothing of the size of θ_h.
2. and 3. are evaluated for a block of steps at once.
"""

import dataclasses
import functools
from typing import Any, ClassVar, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from jaxbptt import _axes, _masks
from jaxbptt._errors import arguments
from jaxbptt._factory import factory
from jaxbptt._time import blocks, sweeps
from jaxbptt._time.loop import hold, on_cpu
from jaxbptt._trees import cotangents
from jaxbptt.adjoints import _errors, _host
from jaxbptt.cells._from_split import split_of, take_step
from jaxbptt.cells.combinators.masked import MaskedInput
from jaxbptt.types import Adjoint


class _How(NamedTuple):
    """Steps per block; the tree of the residuals, if they are computed again; whether the host keeps them.

    With `passes_over`, a block in which no member's step is real is not run.
    """

    block: int
    recomputed: Any
    on_host: bool
    passes_over: bool = False


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _recursion(cell, how, theta_h, xs, h_0):
    return _forward(cell, how, theta_h, xs, h_0)[0]


def _forward(cell, how, theta_h, xs, h_0):
    """h_T and the outputs; and what the pullback reads: kept of each step, and the state before each block."""
    weights = hold(split_of(cell), theta_h, h_0)
    block = functools.partial(_forward_or_still if how.passes_over else _forward_block, cell, how, weights)
    h_T, outputs, kept = blocks.scan(block, h_0, xs, how.block)
    if not how.on_host:  # read off the kept states: no copy where the output is the state
        outputs = jax.vmap(cell.output)(blocks.join(kept[0][0]))
    return (h_T, outputs), (theta_h, xs, kept)


def _forward_or_still(cell, how, weights, h, xs, _):
    run = functools.partial(_forward_block, cell, how, weights, each=None)
    return lax.cond(jnp.any(xs.mask), run, functools.partial(_stand_still, run), h, xs)


def _stand_still(run, h, xs):
    """A block without a real step: every state is the one before it, and nobody reads its residuals."""
    _, outputs, ((hs, residuals), _) = _zeros_like(run, h, xs)
    hs = jax.tree.map(lambda leaf, h: jnp.broadcast_to(h, leaf.shape), hs, h)
    return h, outputs, ((hs, residuals), h)


def _zeros_like(run, *arguments):
    """Zeros in the place of what a block gives."""
    made = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), jax.eval_shape(run, *arguments))
    return cotangents.alike(made, arguments)[0]


def _forward_block(cell, how, weights, h, xs, each):
    h_K, hs, residuals = sweeps.forward(split_of(cell), weights, xs, h, keep=how.recomputed is None)
    if how.on_host:
        return h_K, jax.vmap(cell.output)(hs), (_host.store((hs, residuals)), h)
    return h_K, None, ((hs, residuals), h)


def _backward(cell, how, forward, bars):
    (theta_h, xs, kept), (h_T_bar, output_bars) = forward, cotangents.from_jax(bars)
    block = _reverse_or_pass if how.passes_over else _reverse_block
    block = functools.partial(block, cell, how, hold(split_of(cell), theta_h))
    carry = h_T_bar, cotangents.zeros(theta_h, to_sum=True)
    (h_0_bar, theta_bar), xs_bar, _ = blocks.scan(block, carry, (xs, output_bars), how.block, each=kept, reverse=True)
    return cotangents.narrow(theta_bar, theta_h), xs_bar, h_0_bar


def _reverse_or_pass(cell, how, weights, carry, inputs, kept):
    run = functools.partial(_reverse_block, cell, how, weights)
    return lax.cond(jnp.any(inputs[0].mask), run, functools.partial(_pass_back, cell, run), carry, inputs, kept)


def _pass_back(cell, run, carry, inputs, kept):
    """A block without a real step: each cotangent of its outputs is one of the state before it."""
    (c_delta, theta_bar), (_, output_bars), ((hs, _), _) = carry, inputs, kept
    _, xs_bar, _ = _zeros_like(run, carry, inputs, kept)
    h_bars = jax.vmap(lambda bar, h: cotangents.pulled(cell.output, bar, h)[0])(output_bars, hs)
    c_delta = jax.tree.map(lambda bar, bars: bar + jnp.sum(bars, axis=0), c_delta, h_bars)
    return (c_delta, theta_bar), xs_bar, None


def _reverse_block(cell, how, weights, carry, inputs, kept):
    (c_delta, theta_bar), (xs, output_bars), (of_steps, h_before) = carry, inputs, kept
    split, theta_h = split_of(cell), weights.theta_h
    hs, residuals = _host.fetch(of_steps) if how.on_host else of_steps
    hs_tm1 = sweeps.shifted(h_before, hs)
    if how.recomputed is not None:
        # Now, for this block: else a compiler may keep those of the forward pass.
        xs, hs, hs_tm1, c_delta = lax.optimization_barrier((xs, hs, hs_tm1, c_delta))
        residuals = split.residuals(theta_h, split.project(theta_h, xs), hs_tm1, hs)
        _errors.same_residuals(how.recomputed, jax.tree.structure(residuals))
    steps = sweeps.Steps(xs, hs_tm1, hs, residuals)
    c_delta, z_bars = sweeps.reverse(split, weights, steps, output_bars, c_delta, output=cell.output)  # 1.
    theta_bar = cotangents.accumulate(theta_bar, split.param_vjp(theta_h, *steps, z_bars))  # 2. Σ b_tᵀ delta_t
    return (c_delta, theta_bar), split.input_vjp(theta_h, *steps, z_bars), None  # 3.


_recursion.defvjp(_forward, _backward)


@dataclasses.dataclass(frozen=True)
class Full:
    """The adjoint `full`: the steps of a block, and the residuals and memory it keeps."""

    block: int | None
    residuals: str
    memory: str
    keeps_forward_mode: ClassVar[bool] = False

    def __call__(self, cell, theta_h, xs, h_0) -> Any:
        """(h_T, hs), with this rule for their gradient."""
        T, on_host = jax.tree.leaves(xs)[0].shape[0], self.memory == "host"
        if not isinstance(T, int) or on_host:
            _errors.laid_out(T, on_host and on_cpu())
        step = jax.eval_shape(functools.partial(take_step, split_of(cell)), theta_h, _axes.one_step(xs), h_0)
        of_a_step = jax.tree.structure(step[2])
        recomputed = of_a_step if self.residuals == "states" and of_a_step.num_leaves else None
        masked = isinstance(xs, MaskedInput) and not on_host
        of_arrays = {"bounded": on_host or recomputed is not None, "ragged": masked}
        block = blocks.even(T, self.block or blocks.choose(step, theta_h, T, **of_arrays))
        how = _How(block, recomputed, on_host, passes_over=masked and blocks.MANY * block <= T)
        if T % how.block:
            return _masks.in_blocks(_recursion, cell, how, theta_h, xs, h_0)
        return _recursion(cell, how, theta_h, xs, h_0)


@factory
def full(
    *,
    block: int | None = None,
    residuals: Literal["gates", "states"] = "gates",
    memory: Literal["device", "host"] = "device",
) -> Adjoint:
    """Backpropagation through time with the cell's own pullback, every state kept.

    ``delta_t = h_bar_t + c_{t+1}ᵀ delta_{t+1}``, then ``∂F/∂θ_h = Σ_t b_tᵀ delta_t``. Exact. The reverse scan carries
    no array of the size of θ_h. Each step has one product with a weight in each direction. The rest is one product for
    each block of steps. Memory grows with T.

    Args:
        block: the most steps taken together outside the scan. The default follows the backend and the sizes of arrays,
            and is rarely worth changing. T need not be a multiple.
        residuals: ``"gates"`` keeps the states and what the pullback needs of each step: fastest. ``"states"`` keeps
            the states alone and computes the rest again, a block at a time.
        memory: where they are kept. ``"host"`` writes them to the host's memory, block by block, and fetches them in
            the reverse pass. The accelerator then holds one block of them.

    Returns:
        An adjoint, ``(cell, theta_h, xs, h_0) -> (h_T, hs)``. The same object for equal arguments.

    Raises:
        TypeError, ValueError: for a block that is no positive integer, or other residuals or another memory.
        NotImplementedError: when traced, for ``memory="host"`` on a CPU, whose memory is the host's.

    Notes:
        Reverse mode only, to any order of ``jax.grad``. For ``jax.jvp`` and ``jax.linearize`` take `tangent` or
        `autodiff`. With ``memory="host"`` and several blocks there is the first order only: JAX can't add cotangents
        that lie in two memories. JAX limits its share of the host's memory (``XLA_PJRT_GPU_HOST_MEMORY_LIMIT_GB``).

        The residuals of LSTM and GRU are 4 numbers for each unit, step and sample. Linear, Elman and a step of yours
        have none. ``"states"`` about halves the memory of gated cells where T takes several blocks.

        On an accelerator eight steps of each loop are written out. That takes some three times the compile time of one.
        From T = 64 on, a T without a divisor from 4 to 8 takes up to half as much memory again: pad it to a multiple
        of 8.

    Source: Werbos (1990), Backpropagation through time: what it does and how to do it, eq. 11-15.

    >>> import jax.numpy as jnp, jaxbptt as jb
    >>> theta_h = jb.cells.LinearParams(W_x=jnp.eye(1), W_h=0.5 * jnp.eye(1))
    >>> h_T = lambda h_0: jb.unroll(jb.cells.linear(), theta_h, jnp.ones((3, 1)), h_0, adjoint=full())[0][0]
    >>> jax.grad(h_T)(jnp.zeros(1)).tolist()  # 0.5³
    [0.125]
    """
    if block is not None:
        arguments.count("block", block)
    if residuals not in ("gates", "states"):
        arguments.one_of("residuals", residuals, ("gates", "states"), "there is nothing else to keep")
    if memory not in ("device", "host"):
        arguments.one_of("memory", memory, ("device", "host"), "there is nowhere else to keep it")
    return Full(block, residuals, memory)
