"""A cell that stands still where a mask is False.

    h_t = f(x_t, h_{t-1}) where mask_t, else h_{t-1}

Pullback: delta_t goes through f where the mask holds, and to h_{t-1}, unchanged, where it doesn't.
"""

import functools
from collections.abc import Callable
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


class MaskedInput(NamedTuple):
    """``x [T, *batch, …]``, and ``mask [T, *batch]``: whether the step is taken.

    >>> lengths = jnp.array([3, 1])  # of two sequences, padded to 3 steps
    >>> MaskedInput(x=jnp.ones((3, 2, 4)), mask=jnp.arange(3)[:, None] < lengths).mask.tolist()
    [[True, True], [True, False], [True, False]]
    """

    x: Any
    mask: Array | None
    flags_every_member = True  # no field: the axes of `mask` are time and batch, where those of x may not tell


@factory
def masked(cell: Cell) -> Cell:
    """The same cell on inputs ``MaskedInput(x, mask)``: the state stands still where the mask is False.

    For sequences of different lengths, padded anywhere. What a padded step's x holds, NaN included, reaches
    neither a state nor a gradient (of a cell of yours: where f's derivative is finite at what x holds, and at 0 where
    that isn't finite or near the largest number: beyond 8e28 in float32, 4e3 in float16). Where a pullback has no
    finite value at a state that stood still, the gradient and ``jax.jvp`` of it are right, and ``jax.grad`` of
    ``jax.grad`` is NaN but by `adjoints.autodiff`. As exact as the inner cell; costs that and a few selects.

    Args:
        cell: the `Cell` that takes the steps.

    Returns:
        A `Cell` with the parameters and state of the inner one.

    Raises:
        TypeError: when `cell` is not a `Cell`; when used, if the mask is not boolean.

    >>> from jaxbptt import cells
    >>> cell = masked(cells.elman())
    >>> theta_h = cell.init(jax.random.key(0), input_size=3, hidden_size=5)
    >>> padded = MaskedInput(x=jnp.full((3,), jnp.nan), mask=jnp.array(False))
    >>> cell.apply(theta_h, padded, jnp.ones(5)).tolist()
    [1.0, 1.0, 1.0, 1.0, 1.0]
    """
    arguments.cells("cell", (cell,))
    return standing(cell, _of_f)


@factory
def standing(cell: Cell, given: Callable) -> Cell:
    """`masked`, whose sums over time read what f reads and gives as ``given(inner, theta_h, xs, hs_tm1, hs)`` says."""
    inner = split_of(cell)
    pieces = (functools.partial(piece, inner) for piece in (_project, _step, _residuals, _step_vjp))
    split = TimeSplit(
        *pieces,
        param_vjp=functools.partial(_param_vjp, inner, given),
        input_vjp=functools.partial(_input_vjp, inner, given),
        operands=inner.operands,
    )
    return cell_from_split(
        split,
        init=cell.init,
        initial_state=cell.initial_state,
        check=functools.partial(_check, cell),
        output=cell.output,
        mixed=lambda whole: with_members_of(whole, standing(mixed_precision(cell), given)),
    )


def _real(xs):
    return cotangents.without_nonfinite(xs.x, xs.mask, 0.75)  # W_x x of larger numbers may be inf - inf


def _project(inner, theta_h, xs):
    return xs.mask, inner.project(theta_h, _real(xs))


def _step(inner, theta_h, projected_t, h_tm1):
    mask_t, u_t = projected_t
    h_t, residuals_t = inner.step(theta_h, u_t, h_tm1)
    return cotangents.where(mask_t, h_t, h_tm1), residuals_t


def _residuals(inner, theta_h, projected, hs_tm1, hs):
    # By the step: `inner.residuals` would ask for the h_t of f, which at a padded step is not the state.
    return jax.vmap(inner.step, in_axes=(None, 0, 0))(theta_h, projected[1], hs_tm1)[1]


def _step_vjp(inner, theta_h, x_t, residuals_t, h_tm1, h_t, delta_t):
    to_f = cotangents.where(x_t.mask, delta_t, jax.tree.map(jnp.zeros_like, delta_t))
    z_bar_t, h_bar_tm1 = inner.step_vjp(theta_h, _real(x_t), residuals_t, h_tm1, h_t, to_f)
    # Of a padded step it is 0, being linear in delta_t; but the pullback was read at a state that stood still and is
    # not f's, where what it multiplies 0 by may be no number.
    none = jax.tree.map(jnp.zeros_like, z_bar_t)
    return cotangents.where(x_t.mask, z_bar_t, none), cotangents.where(x_t.mask, h_bar_tm1, delta_t)


def _param_vjp(inner, given, theta_h, xs, hs_tm1, hs, residuals, z_bars):
    real, hs = given(inner, theta_h, xs, hs_tm1, hs)
    return inner.param_vjp(theta_h, real, hs_tm1, hs, residuals, z_bars)


def _input_vjp(inner, given, theta_h, xs, hs_tm1, hs, residuals, z_bars):
    real, hs = given(inner, theta_h, xs, hs_tm1, hs)
    return MaskedInput(inner.input_vjp(theta_h, real, hs_tm1, hs, residuals, z_bars), None)


def _of_f(inner, theta_h, xs, hs_tm1, hs):
    """What f reads, and the h_t that it gives: at a padded step another one than the state.

    There z_bar_t is 0, which by a pullback of h_t is no number where the state is one that f never gives. Sums over
    time that don't read h_t, as those of all cells here, leave a compiler nothing of this to compute.
    """
    real = _real(xs)
    given, _ = jax.vmap(inner.step, in_axes=(None, 0, 0))(theta_h, inner.project(theta_h, real), hs_tm1)
    return real, cotangents.where(xs.mask, hs, given)


def of_copies(inner, theta_h, xs, hs_tm1, hs):
    """The same where a padded step is a copy of the real one before it: the state is then one that f gave."""
    return xs.x, hs


def _check(cell, theta_h, xs, h_0):
    _errors.flagged_input("masked", MaskedInput, xs, h_0)
    if cell.check is not None:
        cell.check(theta_h, xs.x, h_0)
