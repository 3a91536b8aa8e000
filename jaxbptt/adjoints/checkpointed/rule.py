"""The schedule, run: keep some states, and compute the others again when their turn comes.

    delta_t = h_bar_t + c_{t+1}ᵀ delta_{t+1}      needs h_t for t = T … 1, the order opposite to h_t = f(x_t, h_{t-1})

The first sweep keeps a few h_t. The states after the last of them are then computed again, and some of these kept in
turn. A stretch short enough to be kept whole is reversed as in `jaxbptt.adjoints.full`. The schedule of `revolve` says
what to keep when. It is a list of small integers, run by one scan: the program is the same for every T.

Time is U units of K steps. The caller reads a unit by ``read(theta_o, outputs, (ys, real))``, which is evaluated and
differentiated in the unit. `jaxbptt.unroll` reads the outputs themselves. `jaxbptt.objective` reads the losses, and no
array spans all of T.
"""

import functools
import operator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.custom_derivatives import SymbolicZero

from jaxbptt._time import sweeps
from jaxbptt._time.loop import Weights, hold, operands
from jaxbptt._trees import cotangents
from jaxbptt.adjoints.checkpointed.revolve import schedule
from jaxbptt.adjoints.checkpointed.rows import at, empty, put, row, several
from jaxbptt.adjoints.checkpointed.tables import back_table
from jaxbptt.cells._from_split import split_of, with_time_axis, without_time_axis
from jaxbptt.cells.combinators.masked import MaskedInput


class _Bars(NamedTuple):
    """Carried from right to left: h_t and c_{t+1}ᵀ delta_{t+1} of the last step reversed, and the sums so far."""

    h_t: Any
    c_delta_tp1: Any
    theta_h: Any
    xs: Any
    theta_o: Any
    ys: Any


class _Recursion(NamedTuple):
    """f as the loops run it, with its weights for the forward loop, and whether a row has residuals."""

    split: Any
    theta_h: Any
    weights: Weights
    keep: bool


def _prepared(cell, terms, theta_h, h_0):
    split = split_of(cell)
    if split.operands is not None:
        theta_h = operands(split, theta_h)
    read_as_it_is = split._replace(operands=None)
    return _Recursion(read_as_it_is, theta_h, hold(read_as_it_is, theta_h, h_0), terms.residuals)


def _advance(f, xs, h, rows, row):
    """Runs a unit from `h`: the state reached, all its states, and the rows, written from `row` on."""
    h_K, hs, residuals = sweeps.forward(f.split, f.weights, xs, h, keep=f.keep)
    return h_K, hs, put(rows, (sweeps.shifted(h, hs), residuals), row)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1, 2))
def recursion(cell, terms, read, theta_h, xs, h_0, theta_o, ys):
    """h_T, and the result of `read` for each unit, stacked."""
    return _sweep(cell, terms, read, theta_h, xs, h_0, theta_o, ys)[:2]


def _steps(K, T, xs, ys, unit):
    """The inputs of a unit, and its targets with which steps are real (``None``: all).

    They are read in place: cutting or padding would copy them whole. Beyond T there are copies of the last step, where
    the state stands still.
    """
    if T % K == 0:
        xs, ys = several((xs, ys), unit * K, K)
        return xs, (ys, None)
    steps = unit * K + jnp.arange(K, dtype=jnp.int32)
    xs, ys = jax.tree.map(operator.itemgetter(jnp.minimum(steps, T - 1)), (xs, ys))
    return MaskedInput(xs, steps < T), (ys, steps < T)


def _sweep(cell, terms, read, theta_h, xs, h_0, theta_o, ys):
    """The first sweep: h_T, the results of `read`, and the rows."""
    plan = schedule(*terms)
    steps = functools.partial(_steps, plan.block, terms.T)
    like = row(cell, terms.residuals, theta_h, jax.eval_shape(steps, xs, ys, 0)[0], h_0)
    f = _prepared(cell, terms, theta_h, h_0)

    def a_unit(carry, inputs):
        (h, rows), (unit, row) = carry, inputs
        of_xs, of_ys = steps(xs, ys, unit)
        h, hs, rows = _advance(f, of_xs, h, rows, row)
        # The value that the pullback has: forward mode can't pass a rule for reverse mode.
        return (h, rows), jax.vjp(read, theta_o, jax.vmap(cell.output)(hs), of_ys)[0]

    units = np.arange(len(plan.sweep_rows), dtype=np.int32), plan.sweep_rows
    (h_T, rows), made = lax.scan(a_unit, (h_0, empty(like, plan.rows, xs)), units)
    return h_T, made, rows


def _forward(cell, terms, read, *primals):
    (theta_h, xs, h_0, theta_o, ys), is_wanted = cotangents.unpacked(primals)
    # The keys say which arguments want a cotangent: the structure of a residual is static.
    names = ("theta_h", "xs", "h_0", "theta_o", "ys")
    wanted = {name: () for name, wanted in zip(names, is_wanted, strict=True) if wanted}
    h_T, made, rows = _sweep(cell, terms, read, theta_h, xs, h_0, theta_o, ys)
    return (h_T, made), (theta_h, xs, theta_o, ys, h_T, rows, wanted)


def _backward(cell, terms, read, kept, bars):
    theta_h, xs, theta_o, ys, h_T, rows, wanted = kept
    nothing_read = all(isinstance(bar, SymbolicZero) for bar in jax.tree.leaves(bars[1]))  # a loss of h_T alone
    h_T_bar, made_bars = _real_zeros(bars[0], xs), None if nothing_read else _real_zeros(bars[1], xs)
    plan, f = schedule(*terms), _prepared(cell, terms, theta_h, h_T)
    steps, rest = functools.partial(_steps, plan.block, terms.T, xs, ys), -terms.T % plan.block

    def instruction(carry, do):
        rows, bars = carry

        def advance(_, carry):
            h, rows, unit, row = carry
            h, _, rows = _advance(f, steps(unit)[0], h, rows, row)
            return h, rows, unit + 1, row + do.stride

        def turn_back(_, carry):
            bars, unit, row = carry
            inputs = *steps(unit), at(made_bars, unit), unit * plan.block
            return _reverse_unit(cell, f, read, theta_o, inputs, rows, row, bars), unit - 1, row - plan.block

        loaded = at(rows[0], do.load), rows, do.unit, do.row
        h, (states, residuals), _, _ = lax.fori_loop(0, do.advance, advance, loaded)
        stored = jax.tree.map(functools.partial(jnp.where, do.stores == 1), h, at(states, do.store))
        rows = put(states, with_time_axis(stored), do.store), residuals
        bars, _, _ = lax.fori_loop(0, do.reverse, turn_back, (bars, do.last_unit, do.last_row))
        return (rows, bars), None

    sums = {"theta_h": theta_h, "theta_o": theta_o, "xs": xs, "ys": ys}
    sums = {
        name: cotangents.zeros(primal, to_sum=name[:5] == "theta") if name in wanted else None
        for name, primal in sums.items()
    }
    if rest:
        sums |= jax.tree.map(lambda leaf: jnp.concatenate([leaf, leaf[:rest]]), {k: sums[k] for k in ("xs", "ys")})
    bars = _Bars(h_t=h_T, c_delta_tp1=h_T_bar, **sums)
    (_, bars), _ = lax.scan(instruction, (rows, bars), back_table(plan))
    theta_h_bar, theta_o_bar = (
        None if bar is None else cotangents.narrow(bar, theta)
        for bar, theta in ((bars.theta_h, theta_h), (bars.theta_o, theta_o))
    )
    xs_bar, ys_bar = (bars.xs, bars.ys) if not rest else jax.tree.map(lambda leaf: leaf[:-rest], (bars.xs, bars.ys))
    return theta_h_bar, xs_bar, bars.c_delta_tp1, theta_o_bar, ys_bar


def _reverse_unit(cell, f, read, theta_o, inputs, rows, row, bars):
    """One unit from right to left. Its first step is kept at `row`."""
    xs, ys, made_bar, start = inputs
    hs_tm1, residuals = several(rows, row, jax.tree.leaves(xs)[0].shape[0])
    hs = sweeps.shifted_back(hs_tm1, bars.h_t)
    if not f.keep:
        residuals = f.split.residuals(f.theta_h, f.split.project(f.theta_h, xs), hs_tm1, hs)
    output_bars, theta_o_bar, ys_bar = None, bars.theta_o, bars.ys
    if made_bar is not None:
        of_theta_o, output_bars, of_ys = cotangents.pulled(read, made_bar, theta_o, jax.vmap(cell.output)(hs), ys)
        theta_o_bar = None if theta_o_bar is None else cotangents.accumulate(theta_o_bar, of_theta_o)
        ys_bar = None if ys_bar is None else put(ys_bar, of_ys[0], start)
    steps = sweeps.Steps(xs, hs_tm1, hs, residuals)
    weights = Weights(f.theta_h, None, None)
    c_delta, z_bars = sweeps.reverse(f.split, weights, steps, output_bars, bars.c_delta_tp1, output=cell.output)
    theta_h_bar, xs_bar = bars.theta_h, bars.xs
    if theta_h_bar is not None:
        theta_h_bar = cotangents.accumulate(theta_h_bar, f.split.param_vjp(f.theta_h, *steps, z_bars))
    if xs_bar is not None:
        of_xs = f.split.input_vjp(f.theta_h, *steps, z_bars)
        xs_bar = put(xs_bar, of_xs.x if ys[1] is not None else of_xs, start)
    h_before = without_time_axis(hs_tm1)
    return _Bars(h_before, c_delta, theta_h_bar, xs_bar, theta_o_bar, ys_bar)


def _real_zeros(bars, like):
    """Symbolic zeros as arrays that vary as `like` does; ``None`` at a leaf without a derivative."""
    like, (leaves, structure) = jax.tree.leaves(like)[0], jax.tree.flatten(cotangents.from_jax(bars))
    return structure.unflatten(
        [cotangents.zero(bar.shape, bar.dtype, like) if isinstance(bar, SymbolicZero) else bar for bar in leaves]
    )


recursion.defvjp(_forward, _backward, symbolic_zeros=True)
