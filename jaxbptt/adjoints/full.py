"""Backpropagation through time, by hand: the double sum from right to left.

    h_t = f(x_t, h_{t-1}; θ_h),   b_t = ∂f(x_t, h_{t-1}; θ_h)/∂θ_h,   c_t = ∂f(x_t, h_{t-1}; θ_h)/∂h_{t-1}

With h_bar_t the cotangent that reaches h_t from outside the recursion (through the readout):

 1. h_t influences F directly and through h_{t+1} only, so its cotangent along all paths is
        delta_t = h_bar_t + c_{t+1}ᵀ delta_{t+1},      delta_T = h_bar_T.
 2. θ_h enters every step, and step t's copy reaches F through h_t only, so
        ∂F/∂θ_h = Σ_t b_tᵀ delta_t.
 3. Likewise ∂F/∂x_t = (∂f/∂x_t)ᵀ delta_t and ∂F/∂h_0 = c_1ᵀ delta_1.

Only 1. is sequential. The reverse scan carries delta and nothing of the size of θ_h; 2. and 3. are evaluated for
a block of steps at once (`jaxbptt.types.TimeSplit`, `jaxbptt.adjoints._blocks`). Where blocks overlap, a step is
reversed in the block whose own it is, and is passed by in the other.
"""

import functools
from collections.abc import Callable
from typing import Literal, cast

import jax
from jax import lax

from jaxbptt import _cotangents as cotangents
from jaxbptt._dtypes import wide
from jaxbptt._errors import arguments
from jaxbptt._factory import factory
from jaxbptt._loop import over_time
from jaxbptt.adjoints import _errors, _gates, _host
from jaxbptt.adjoints._blocks import choose, handed_on, join, own_step, read_in_a_loop, scan_blocks, shifted, states
from jaxbptt.cells._from_split import split_of
from jaxbptt.types import Adjoint, Cell


@factory
def _rule(cell: Cell, block: int | None, keep_gates: bool, on_host: bool) -> Callable:
    """The recursion of one cell with its gradient written by hand, as ``(theta_h, xs, h_0) -> (h_T, hs)``."""
    split = split_of(cell)
    outputs_of = jax.vmap(cell.output)

    def size(theta_h, xs, h_0, layout):
        return block or choose(split, theta_h, xs, h_0, layout, on_host=on_host, recomputed=not keep_gates)

    def sweep(theta_h, xs, h_0):
        """h_T, the outputs, and what the pullback wants kept: of each step, and of each block the state before it."""
        layout = _gates.layout(split, theta_h, xs, h_0)

        def block_of_steps(h, xs, _, span):
            h_end, hs, gates = states(split, theta_h, xs, h, layout if keep_gates else None)
            outputs, kept = (outputs_of(hs), _host.store((hs, gates))) if on_host else (None, (hs, gates))
            return handed_on(h_end, hs, span), outputs, (kept, h)

        h_T, outputs, made = scan_blocks(block_of_steps, h_0, xs, size(theta_h, xs, h_0, layout))
        if not on_host:  # read off the states: where they are the states, that is no copy
            (hs, _), _ = made
            outputs = outputs_of(join(hs, jax.tree.leaves(xs)[0].shape[0]))
        return (h_T, outputs), made

    @jax.custom_vjp
    def recursion(theta_h, xs, h_0):
        return sweep(theta_h, xs, h_0)[0]

    def forward(theta_h, xs, h_0):
        results, kept = sweep(theta_h, xs, h_0)
        return results, (theta_h, xs, h_0, kept)

    def backward(residuals, bars):
        theta_h, xs, h_0, made = residuals
        h_T_bar, output_bars = cotangents.from_jax(bars)
        layout = _gates.layout(split, theta_h, xs, h_0)
        weights = read_in_a_loop(split, theta_h)

        def step(c_delta_tp1, inputs):  # c_{t+1}ᵀ delta_{t+1}
            gates_t, h_tm1, h_t, output_bar_t, own = inputs
            _, pull_output = cotangents.pullback(cell.output, h_t)
            (h_bar_t,) = pull_output(output_bar_t)
            delta_t = cotangents.add(h_bar_t, c_delta_tp1)
            pull = functools.partial(split.step_vjp, weights(), gates_t, h_tm1, h_t)
            z_bar_t, c_delta_t = own_step(pull, own, delta_t, c_delta_tp1)
            return c_delta_t, z_bar_t

        def block_of_steps(carry, inputs, made, span):
            (c_delta_tp1, theta_bar), (xs, output_bars), (kept, h_before) = carry, inputs, made
            hs, gates_kept = _host.fetch(kept) if on_host else kept
            hs_tm1 = shifted(h_before, hs)
            own = None if span is None else span.own(jax.tree.leaves(xs)[0].shape[0])
            if keep_gates:
                gates = _gates.together(layout, xs, hs_tm1, hs, gates_kept)
            else:
                if layout.computes:  # now, for this block: else a compiler may keep what the forward pass had of it
                    xs, hs, hs_tm1, c_delta_tp1 = lax.optimization_barrier((xs, hs, hs_tm1, c_delta_tp1))
                gates = _gates.made_again(split, theta_h, xs, hs_tm1, hs)
            c_delta_t, z_bars = over_time(step, c_delta_tp1, (gates, hs_tm1, hs, output_bars, own), reverse=True)
            b_deltas = split.param_vjp(theta_h, xs, hs_tm1, gates, z_bars)  # Σ b_tᵀ delta_t over the block
            theta_bar = jax.tree.map(lambda total, part: total + part.astype(total.dtype), theta_bar, b_deltas)
            return (c_delta_t, theta_bar), split.input_vjp(theta_h, xs, hs_tm1, gates, z_bars), None

        nothing = cotangents.zeros(theta_h)
        carry = (h_T_bar, jax.tree.map(lambda leaf: leaf.astype(wide(leaf.dtype)), nothing))
        (h_0_bar, theta_bar), xs_bar, _ = scan_blocks(
            block_of_steps, carry, (xs, output_bars), size(theta_h, xs, h_0, layout), each=made, reverse=True
        )
        theta_bar = jax.tree.map(lambda total, leaf: total.astype(leaf.dtype), theta_bar, nothing)
        return theta_bar, xs_bar, h_0_bar

    recursion.defvjp(forward, backward)
    return recursion


@factory
def full(
    *,
    block: int | None = None,
    residuals: Literal["gates", "states"] = "gates",
    memory: Literal["device", "host"] = "device",
) -> Adjoint:
    """Backpropagation through time with the cell's own pullback, every state kept.

    ``delta_t = h_bar_t + c_{t+1}ᵀ delta_{t+1}``, then ``∂F/∂θ_h = Σ_t b_tᵀ delta_t``. Exact. The reverse scan carries
    no array of the size of θ_h, and each step has one product with a weight in each direction; the rest is one
    product for a block of steps. Memory grows with T. On an accelerator eight steps of each loop are written out, for
    some three times the compile time of one; from T = 64 on one without a divisor from 4 to 8 then takes up to half as
    much memory again, which padding to a multiple of 8 saves.

    Reverse mode only, to any order of ``jax.grad``; for ``jax.jvp`` and ``jax.linearize`` use `tangent` or `autodiff`.
    With ``memory="host"`` to the first order: beyond it, where there are several blocks, JAX can't add cotangents that
    lie in two memories, and raises an error.

    Args:
        block: how many steps are taken together outside the scan, at most. ``None`` chooses by
            ``jax.default_backend()``: all of T on an accelerator; on a CPU all of T where its largest array is below
            8 MiB, else as many as write 2 MiB, or half the size of a large θ_h up to 8 MiB. With ``residuals="states"``
            of a cell with gates, or ``memory="host"``, what a block holds is bounded anywhere, by that on a CPU and by
            64 MiB on an accelerator. T need not be a multiple: the last block then begins earlier, and runs the steps
            that it shares with the block before once more, fewer than there are blocks; `xs` and the cotangents of the
            outputs are copied once, which for a loss of h_T alone can double what is held.
        residuals: ``"gates"`` keeps the states and what the pullback needs of each step (LSTM, GRU: 4 more numbers for
            each unit, step and sample; linear, Elman, a step of yours: none): fastest. ``"states"`` keeps the states
            and computes the gates again, a block at a time: about half of the memory for gated cells where T takes
            several blocks; none is saved where all of T is one (on a CPU, below 2 MiB of gates).
        memory: where they are kept. ``"host"`` writes them to the host's memory, block by block, and fetches them in
            the reverse pass, for an accelerator whose own memory then holds a block of them. The outputs
            ``[T, *batch, n]``, if a loss reads them all, stay on the device, and so does a copy of `xs` and of its
            cotangent where no block of a suitable length divides T. JAX bounds what it takes of the host's memory
            (``XLA_PJRT_GPU_HOST_MEMORY_LIMIT_GB``). Measured on an H200, an LSTM with T = 2048, B = 64 and d = n = 256
            whose loss reads h_T alone: twice the time, 212 MiB on the device for 1,281; with ``residuals="states"`` 1.3
            times, 321 MiB.

    Returns:
        An adjoint, ``(cell, theta_h, xs, h_0) -> (h_T, hs)``. The same object for equal arguments.

    Raises:
        TypeError, ValueError: for a block that is no positive integer, or other residuals or another memory.
        NotImplementedError: when traced, for ``memory="host"`` where the CPU is the device: that is the host's memory.

    Source: Werbos (1990), Backpropagation through time: what it does and how to do it, eq. 11-15.

    >>> import jax.numpy as jnp, jaxbptt as jb
    >>> theta_h = jb.cells.LinearParams(W_x=jnp.eye(1), W_h=0.5 * jnp.eye(1))
    >>> h_T = lambda h_0: jb.unroll(jb.cells.linear(), theta_h, jnp.ones((3, 1)), h_0, adjoint=full())[0][0]
    >>> jax.grad(h_T)(jnp.zeros(1)).tolist()  # 0.5³
    [0.125]
    """
    if block is not None:
        arguments.count("block", block)
    arguments.one_of("residuals", residuals, ("gates", "states"), "there is nothing else to keep")
    arguments.one_of("memory", memory, ("device", "host"), "there is nowhere else to keep it")

    def adjoint(cell, theta_h, xs, h_0):
        if memory == "host":
            _errors.host_memory(jax.default_backend())
        return _rule(cell, block, residuals == "gates", memory == "host")(theta_h, xs, h_0)

    return cast(Adjoint, adjoint)
