"""Backpropagation through time in bounded memory: keep some states, and compute the others again when their turn comes.

    delta_t = h_bar_t + c_{t+1}ᵀ delta_{t+1}      needs h_t for t = T … 1, the order opposite to h_t = f(x_t, h_{t-1})

The first sweep keeps a few h_t. From the last of them backward, the states up to the next are run through again, some
of these kept in turn, until a stretch is short enough for all of its states to be kept; that one is reversed as in
`jaxbptt.adjoints.full`. What to keep when is the schedule of `jaxbptt.adjoints._revolve`: a list of small integers,
run by one scan, so the program is the same for every T.
"""

import functools
from typing import Any, Literal, NamedTuple, cast

import jax
import jax.numpy as jnp
from jax import lax
from jax.custom_derivatives import SymbolicZero

from jaxbptt import _cotangents as cotangents
from jaxbptt import _validate, _varying
from jaxbptt._dtypes import wide
from jaxbptt._factory import factory
from jaxbptt._loop import over_time, steps_at_once
from jaxbptt.adjoints import _gates, _revolve, _rows
from jaxbptt.adjoints._blocks import join, operands, own_step, sequential_step
from jaxbptt.adjoints._tables import back_table, sweep_table
from jaxbptt.cells._from_split import split_of, with_time_axis
from jaxbptt.types import Adjoint


class Checkpointed(NamedTuple):
    """The adjoint: how much to keep, as the user said it. Equal choices are equal, so nothing is traced twice."""

    slots: int | None
    fraction: float | None
    budget: int | None
    block: int | None
    residuals: str

    def __call__(self, cell, theta_h, xs, h_0):
        """(h_T, hs), with this rule for their gradient."""
        return _checkpointed(cell, _rows.terms(self, cell, theta_h, xs, h_0), theta_h, xs, h_0)


class _Bars(NamedTuple):
    """What goes from right to left: h_t and c_{t+1}ᵀ delta_{t+1} of the last step reversed, and the sums so far.

    `shared` counts the first steps of the unit to reverse that it leaves to the earlier one, which has them as well.
    """

    h_t: Any
    c_delta_tp1: Any
    theta_h: Any
    xs: Any
    shared: Any


def _at(tree, index):
    return jax.tree.map(lambda leaf: lax.dynamic_index_in_dim(leaf, index, keepdims=False), tree)


def _steps(tree, start, length):
    return jax.tree.map(lambda leaf: lax.dynamic_slice_in_dim(leaf, start, length), tree)


def _put(tree, entries, start):
    """`tree` with `entries` written along the first axis, from `start` on."""
    return jax.tree.map(lambda leaf, new: lax.dynamic_update_slice_in_dim(leaf, new, start, 0), tree, entries)


def _forward_of(cell, theta_h, h):
    """θ_h as products read it, and f in its two parts: ``xs -> us`` and ``(u_t, h_tm1) -> (h_t, gates_t)``."""
    split = split_of(cell)
    weights = operands(split, theta_h)
    return weights, (functools.partial(split.project, weights), sequential_step(split, weights, h))


def _advance(f, xs, h, rows, row, output=None):
    """From `h` through the steps of `xs`: the state reached; the rows, with what they keep from `row` on; outputs."""
    project, step_of = f

    def kept_and_next(h_tm1, u_t):
        h_t, gates_t = step_of(u_t, h_tm1)
        return h_t, ((h_tm1, None if rows[1] is None else gates_t), output and output(h_t))

    def written(carry, u_t):
        h_tm1, rows, row = carry
        h_t, (kept, output_t) = kept_and_next(h_tm1, u_t)
        return (h_t, _put(rows, with_time_axis(kept), row), row + 1), output_t

    if steps_at_once() > 1:  # a GPU starts a kernel for every write; a CPU has the row in its cache
        h, (kept, outputs) = over_time(kept_and_next, h, project(xs))
        return h, _put(rows, kept, row), outputs
    (h, rows, _), outputs = over_time(written, (h, rows, row), project(xs))
    return h, rows, outputs


def _reverse(cell, theta_h, xs, rows, row, output_bars, start, K, bars):
    """One unit from right to left. The first of its K steps is `start`, and the rows have it at `row`."""
    split = split_of(cell)
    xs = _steps(xs, start, K)
    hs_tm1, gates = _steps(rows, row, K)
    kept, first = rows[1], row
    if gates is None:
        hs = jax.tree.map(lambda h, last: jnp.concatenate([h[1:], last[None]]), hs_tm1, bars.h_t)
        gates = _gates.made_again(split, theta_h, xs, hs_tm1, hs)
        kept, first = gates, 0

    def step(carry, _):  # counts by itself: an array of indices to scan over would be made anew for every unit
        c_delta_tp1, done = carry  # c_{t+1}ᵀ delta_{t+1}
        i = K - 1 - done
        h_tm1, gates_t = _at(rows[0], row + i), _at(kept, first + i)
        # That of the next row, but what is beyond the K rows may be any other.
        h_t = jax.tree.map(lambda last, next_: jnp.where(done == 0, last, next_), bars.h_t, _at(rows[0], row + i + 1))
        delta_t = c_delta_tp1
        if output_bars is not None:
            _, pull_output = cotangents.pullback(cell.output, h_t)
            delta_t = cotangents.add(pull_output(_at(output_bars, start + i))[0], c_delta_tp1)
        own = None if bars.shared is None else i >= bars.shared
        pull = functools.partial(split.step_vjp, theta_h, gates_t, h_tm1, h_t)
        z_bar_t, c_delta_t = own_step(pull, own, delta_t, c_delta_tp1)
        return (c_delta_t, done + 1), z_bar_t

    (c_delta, _), z_bars = over_time(step, (bars.c_delta_tp1, jnp.int32(0)), None, length=K, reverse=True)
    theta_bar, xs_bar = bars.theta_h, bars.xs
    if theta_bar is not None:
        b_deltas = split.param_vjp(theta_h, xs, hs_tm1, gates, z_bars)  # Σ b_tᵀ delta_t over these steps
        theta_bar = jax.tree.map(lambda total, part: total + part.astype(total.dtype), theta_bar, b_deltas)
    if xs_bar is not None:
        xs_bar = _put(xs_bar, split.input_vjp(theta_h, xs, hs_tm1, gates, z_bars), start)
    shared = None if bars.shared is None else jnp.zeros_like(bars.shared)  # only the last unit in time shares steps
    reached = row if bars.shared is None else row + bars.shared
    return _Bars(_at(rows[0], reached), c_delta, theta_bar, xs_bar, shared)


def _sweep(cell, terms, theta_h, xs, h_0):
    """h_T, the outputs, and what the schedule keeps for the way back."""
    plan = _revolve.schedule(*terms)
    rows = _rows.empty(_rows.row(cell, terms.gates, theta_h, xs, h_0), plan.rows, jax.tree.leaves(xs)[0])
    K, (_, f) = plan.block, _forward_of(cell, theta_h, h_0)

    def unit(carry, do):
        h, rows = carry
        h, rows, outputs = _advance(f, _steps(xs, do.start, K), h, rows, do.row, cell.output)
        if plan.overlap:
            kept = _at(rows[0], do.row + do.handed)
            h = jax.tree.map(lambda end, kept: jnp.where(do.handed == K, end, kept), h, kept)
        return (h, rows), outputs

    (h_T, rows), outputs = lax.scan(unit, (h_0, rows), sweep_table(plan))
    return h_T, join(outputs, jax.tree.leaves(xs)[0].shape[0]), rows


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _checkpointed(cell, terms, theta_h, xs, h_0):
    h_T, outputs, _ = _sweep(cell, terms, theta_h, xs, h_0)
    return h_T, outputs


def _forward(cell, terms, *primals):
    (theta_h, xs, h_0), (theta_h_wanted, xs_wanted, _) = cotangents.unpacked(primals)
    # The structure of a residual is static: which arguments want a cotangent is said by the keys of a dictionary.
    wanted = {name: () for name, is_wanted in (("theta_h", theta_h_wanted), ("xs", xs_wanted)) if is_wanted}
    h_T, outputs, rows = _sweep(cell, terms, theta_h, xs, h_0)
    return (h_T, outputs), (theta_h, xs, h_T, rows, wanted)


def _real_zeros(bars, like):
    """Symbolic zeros as arrays that vary as `like` does, and ``None`` where there is no derivative."""
    return jax.tree.map(
        lambda bar: _varying.zeros(bar.shape, bar.dtype, like) if _is_zero(bar) else bar, cotangents.from_jax(bars)
    )


def _is_zero(bar):
    return isinstance(bar, SymbolicZero)


def _backward(cell, terms, residuals, bars):
    theta_h, xs, h_T, rows, wanted = residuals
    nothing_read = all(_is_zero(bar) for bar in jax.tree.leaves(bars[1]))  # a loss of h_T alone: no array [T, B, n]
    like = jax.tree.leaves(xs)[0]
    h_T_bar, output_bars = _real_zeros(bars[0], like), None if nothing_read else _real_zeros(bars[1], like)
    plan = _revolve.schedule(*terms)
    K, (weights, f) = plan.block, _forward_of(cell, theta_h, h_T)

    def instruction(carry, do):
        def advance(_, carry):
            h, rows, start, row = carry
            h, rows, _ = _advance(f, _steps(xs, start, K), h, rows, row)
            return h, rows, start + K, row + do.stride

        def turn_back(_, carry):
            bars, start, row = carry
            earlier = start - K if bars.shared is None else start - K + bars.shared
            return _reverse(cell, weights, xs, rows, row, output_bars, start, K, bars), earlier, row - K

        rows, bars = carry
        loaded = _at(rows[0], do.load), rows, do.start, do.row
        h, (states, gates), _, _ = lax.fori_loop(0, do.advance, advance, loaded)
        h = jax.tree.map(lambda new, old: jnp.where(do.stores == 1, new, old)[None], h, _at(states, do.store))
        rows = _put(states, h, do.store), gates
        bars, _, _ = lax.fori_loop(0, do.reverse, turn_back, (bars, do.last_start, do.last_row))
        return (rows, bars), None

    theta_bar = jax.tree.map(lambda leaf: leaf.astype(wide(leaf.dtype)), cotangents.zeros(theta_h))
    bars = _Bars(
        h_t=h_T,
        c_delta_tp1=h_T_bar,
        theta_h=theta_bar if "theta_h" in wanted else None,
        xs=cotangents.zeros(xs) if "xs" in wanted else None,
        shared=jnp.int32(plan.overlap) if plan.overlap else None,
    )
    (_, bars), _ = lax.scan(instruction, (rows, bars), back_table(plan))
    theta_bar = bars.theta_h
    if theta_bar is not None:
        theta_bar = jax.tree.map(
            lambda bar, leaf: bar.astype(leaf.dtype), theta_bar, cotangents.differentiable(theta_h)
        )
    return theta_bar, bars.xs, bars.c_delta_tp1


_checkpointed.defvjp(_forward, _backward, symbolic_zeros=True)


@factory
def checkpointed(
    slots: int | None = None,
    fraction: float | None = None,
    budget: int | None = None,
    *,
    block: int | None = None,
    residuals: Literal["gates", "states"] = "gates",
) -> Adjoint:
    """Backpropagation through time that keeps `slots` of the T states and computes the others again.

    ``delta_t = h_bar_t + c_{t+1}ᵀ delta_{t+1}``, then ``∂F/∂θ_h = Σ_t b_tᵀ delta_t``, as in `full`: exact, and the
    same products in the same number. What it costs besides is to run f again; with c slots,

        r·T - C(c + r, c + 1) steps      with r = min {r : C(c + r, c) ≥ T}

    are run in all (for ``block=1``, without gates), and one more for h_T, the fewest possible: for T = 1000 it is 1948
    with 50 slots, 3636 with 10, and 999 of them are the first sweep, which any gradient needs. With blocks of K steps
    it is some per cent more (5% with 50 slots of 1000, 16% with 10). Measured on a CPU with n ≥ 256 and 50 of 1000
    states kept, that is 1.2 to 1.35 times the time of `full` for batches from 32 on, up to 1.6 for smaller ones; on an
    H200, which computes a step in less time than it takes to begin a block, 2.2 times. The
    program runs the schedule as a loop over lists of integers: its size does not depend on T. With `slots` at least T
    nothing is run again but the steps that two blocks share.

    **What is kept** is ``slots + 1`` rows, each a state and, with ``residuals="gates"``, the gates of the step that
    starts there (LSTM, GRU: 4 numbers for each unit and sample beside 2 or 1; Elman, linear and user cells: none);
    further, what one block of K steps needs while it is reversed, ∂F/∂θ_h, and of a batch W_hᵀ. The *outputs*
    ``hs [T, *batch, n]`` are the caller's: a loss of ``h_T`` alone never has them, whereas a readout or a loss that
    reads all of them keeps them and makes their cotangents, two arrays of that size, whatever the adjoint. To have a
    loss of every step without these, carry it in the state: ``f((x_t, y_t), (h, F)) = (h_t, F + L(g(h_t), y_t))``
    through `cells.from_step`, and take F from h_T. `jaxbptt.plan` reads the bytes off the compiled program.

    Reverse mode, once; a second derivative as forward over reverse (``jax.jvp`` of ``jax.grad``). ``jax.jvp`` and
    ``jax.grad`` of ``jax.grad`` raise JAX's error: use `tangent` or `autodiff` for forward mode, `full` or `autodiff`
    for reverse over reverse.

    Args:
        slots: c, the number of states kept, h_0 included. Of this and the next two give one at most. Without any,
            the two-level form: √(2T) slots, with which each step is run about twice in all.
        fraction: the same, as a share of T, ``0 < fraction <= 1``.
        budget: the same, as bytes for the rows kept (the rows only; see above for the rest).
        block: K ≤ slots, how many steps are reversed together, at most: the products for ∂F/∂θ_h and ∂F/∂x are one for
            K steps. ``None`` chooses one that costs little, larger for a small batch; at most 32, and at most a third
            of the slots, as what a block needs is memory too. T need not be a multiple: the last block then begins
            earlier, as in `full`.
        residuals: ``"gates"`` keeps gates with the states of a row, as `full` does by default: fastest. ``"states"``
            makes a row smaller (LSTM: a third, GRU: a fifth) and computes the gates of a block again.

    Returns:
        An adjoint, ``(cell, theta_h, xs, h_0) -> (h_T, hs)``. The same object for equal arguments.

    Raises:
        TypeError, ValueError: now, for more than one of slots, fraction and budget, or one out of its range; when the
            recursion is traced, for a budget without room for two rows (the message has the least) or a block
            larger than the slots.

    Source: Griewank and Walther (2000), Algorithm 799: revolve; for recurrent models, Gruslys et al. (2016),
    Memory-efficient backpropagation through time.

    >>> import jaxbptt as jb
    >>> theta_h = jb.cells.LinearParams(W_x=jnp.eye(1), W_h=0.5 * jnp.eye(1))
    >>> def h_T(h_0):
    ...     return jb.unroll(jb.cells.linear(), theta_h, jnp.ones((9, 1)), h_0, adjoint=checkpointed(slots=2))[0][0]
    >>> jax.grad(h_T)(jnp.zeros(1)).tolist() == [0.5**9]
    True
    """
    _validate.one_memory(slots=slots, fraction=fraction, budget=budget)
    if block is not None:
        _validate.count("block", block)
    _validate.one_of("residuals", residuals, ("gates", "states"), "there is nothing else to keep")
    return cast(Adjoint, Checkpointed(slots, fraction, budget, block, residuals))
