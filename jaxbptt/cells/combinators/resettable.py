"""A cell whose state starts anew where a sequence begins.

    h_t = f(x_t, h̃_{t-1}),      h̃_{t-1} = h_0(θ_h) where reset_t, else h_{t-1}

Pullback: c_tᵀ delta_t goes to h_{t-1}. Where a sequence begins it goes to h_0(θ_h), hence to θ_h.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxbptt._errors import arguments
from jaxbptt._factory import factory
from jaxbptt._trees import cotangents
from jaxbptt.cells import _errors
from jaxbptt.cells._from_split import cell_from_split, split_of
from jaxbptt.cells.combinators.mixed_precision import mixed_precision, with_members_of
from jaxbptt.types import Array, Cell, TimeSplit


class ResetInput(NamedTuple):
    """``x [T, *batch, …]``, and ``reset [T, *batch]``: whether a new sequence begins at this step.

    >>> ends = jnp.array([False, True, False])  # two sequences, laid end to end
    >>> ResetInput(x=jnp.ones((3, 4)), reset=jnp.roll(ends, 1)).reset.tolist()
    [False, False, True]
    """

    x: Any
    reset: Array | None
    flags_every_member = True  # as in `MaskedInput`


@factory
def resettable(cell: Cell) -> Cell:
    """The same cell on inputs ``ResetInput(x, reset)``: the state starts anew where `reset` is True.

    For streams of sequences laid end to end; no gradient crosses a reset. The new state is the cell's
    ``initial_state(theta_h)``. It has a gradient if it depends on parameters. As exact as the inner cell; costs that
    and two selects.

    Args:
        cell: the `Cell` that takes the steps.

    Returns:
        A `Cell` with the parameters and state of the inner one.

    Raises:
        TypeError, ValueError: when `cell` is not a `Cell`. When used, if the flags are not boolean, or lack a batch
            axis of the state.

    >>> from jaxbptt import cells
    >>> cell = resettable(cells.linear())
    >>> theta_h = cells.LinearParams(W_x=jnp.eye(2), W_h=jnp.eye(2))
    >>> cell.apply(theta_h, ResetInput(x=jnp.ones(2), reset=jnp.array(True)), jnp.full(2, 9.0)).tolist()
    [1.0, 1.0]
    """
    arguments.cells("cell", (cell,))
    inner = split_of(cell)
    pieces: Any = (_project, _step, _residuals, _step_vjp, _param_vjp, _input_vjp)
    pieces = [functools.partial(piece, cell, inner) for piece in pieces]
    return cell_from_split(
        # Without `operands`: a sequence's first state is made from θ_h as it is. c_t is 0 where one begins.
        TimeSplit(*pieces, jacobian=inner.jacobian, affine=inner.affine),
        init=cell.init,
        initial_state=cell.initial_state,
        check=functools.partial(_check, cell),
        output=cell.output,
        draws=cell.draws,
        mixed=lambda whole: with_members_of(whole, resettable(mixed_precision(cell))),
    )


def _beginning(cell, reset, like, theta_h):
    h_0, like = cotangents.alike(cell.initial_state(theta_h, reset.shape), like)
    # A key has no `astype`.
    return jax.tree.map(lambda leaf, h: leaf if leaf.dtype == h.dtype else leaf.astype(h.dtype), h_0, like)


def _before(cell, theta_h, reset, h_tm1):
    return cotangents.where(reset, _beginning(cell, reset, h_tm1, theta_h), h_tm1)


def _project(cell, inner, theta_h, xs):
    return xs.reset, inner.project(theta_h, xs.x)


def _step(cell, inner, theta_h, projected_t, h_tm1):
    reset_t, u_t = projected_t
    return inner.step(theta_h, u_t, _before(cell, theta_h, reset_t, h_tm1))


def _residuals(cell, inner, theta_h, projected, hs_tm1, hs):
    reset, us = projected
    return inner.residuals(theta_h, us, _before(cell, theta_h, reset, hs_tm1), hs)


def _step_vjp(cell, inner, theta_h, x_t, residuals_t, h_tm1, h_t, delta_t):
    begun = _before(cell, theta_h, x_t.reset, h_tm1)
    z_bar_t, bar = inner.step_vjp(theta_h, x_t.x, residuals_t, begun, h_t, delta_t)
    zero = jax.tree.map(jnp.zeros_like, bar)
    return (z_bar_t, cotangents.where(x_t.reset, bar, zero)), cotangents.where(x_t.reset, zero, bar)


def _param_vjp(cell, inner, theta_h, xs, hs_tm1, hs, residuals, z_bars):
    z_bars, begun_bars = z_bars
    begun = _before(cell, theta_h, xs.reset, hs_tm1)
    theta_bar = inner.param_vjp(theta_h, xs.x, begun, hs, residuals, z_bars)
    _, pull = cotangents.pullback(functools.partial(_beginning, cell, xs.reset, hs_tm1), theta_h)
    return jax.tree.map(lambda bar, begun: bar + begun.astype(bar.dtype), theta_bar, pull(begun_bars)[0])


def _input_vjp(cell, inner, theta_h, xs, hs_tm1, hs, residuals, z_bars):
    begun = _before(cell, theta_h, xs.reset, hs_tm1)
    return ResetInput(inner.input_vjp(theta_h, xs.x, begun, hs, residuals, z_bars[0]), None)


def _check(cell, theta_h, xs, h_0):
    _errors.flagged_input("resettable", ResetInput, xs, h_0)
    _errors.state_of_reset(cell, theta_h, xs.reset, h_0)
    if cell.check is not None:
        cell.check(theta_h, xs.x, h_0)
