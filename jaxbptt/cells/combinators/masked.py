"""A cell that stands still where a mask is False.

    h_t = f(x_t, h_{t-1}) where mask_t, else h_{t-1}

Pullback: delta_t goes through f where the mask holds. Elsewhere it goes to h_{t-1}, unchanged.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from jaxbptt._errors import arguments
from jaxbptt._factory import factory
from jaxbptt._trees import cotangents
from jaxbptt.cells import _errors
from jaxbptt.cells._from_split import cell_from_split, split_of, with_time_axis, without_time_axis
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
    flags_every_member = True  # no field: `mask` has the axes of time and batch, which those of x may not show


@factory
def masked(cell: Cell) -> Cell:
    """The same cell on inputs ``MaskedInput(x, mask)``: the state stands still where the mask is False.

    For sequences of different lengths, padded anywhere. The x of a padded step reaches neither a state nor a gradient.
    NaN and numbers near the largest (beyond 8e28 in float32, 4e3 in float16) are read as 0 there. An integer, even a
    token that no table has, is read as one of a real step. A leaf of x that all members share is ``[T]``. As exact as
    the inner cell; costs that and a few selects.

    Args:
        cell: the `Cell` that takes the steps.

    Returns:
        A `Cell` with the parameters and state of the inner one.

    Raises:
        TypeError: when `cell` is not a `Cell`. When used, if the mask is not boolean.

    Notes:
        With `adjoints.autodiff` and `adjoints.tangent` a cell of yours must have a finite derivative at the values
        read. A pullback may have no finite value at a state that stood still. The gradient and ``jax.jvp`` of it are
        then right. ``jax.grad`` of ``jax.grad`` is NaN, except with `adjoints.autodiff`.

    >>> from jaxbptt import cells
    >>> cell = masked(cells.elman())
    >>> theta_h = cell.init(jax.random.key(0), input_size=3, hidden_size=5)
    >>> padded = MaskedInput(x=jnp.full((3,), jnp.nan), mask=jnp.array(False))
    >>> cell.apply(theta_h, padded, jnp.ones(5)).tolist()
    [1.0, 1.0, 1.0, 1.0, 1.0]
    """
    arguments.cells("cell", (cell,))
    inner = split_of(cell)
    pieces: Any = (_project, _step, _residuals, _step_vjp)
    sums: Any = (inner.param_vjp, inner.input_vjp)
    param_vjp, of_x = (functools.partial(_over_time, rule) for rule in sums)
    split = TimeSplit(
        *(functools.partial(piece, inner) for piece in pieces),
        param_vjp=param_vjp,
        input_vjp=lambda *stack: MaskedInput(of_x(*stack), None),
        operands=inner.operands,
        jacobian=inner.jacobian,  # c_t, or 1 where the state stands still
        affine=inner.affine,
    )
    return cell_from_split(
        split,
        init=cell.init,
        initial_state=cell.initial_state,
        check=functools.partial(_check, cell),
        output=cell.output,
        draws=cell.draws,
        mixed=lambda whole: with_members_of(whole, masked(mixed_precision(cell))),
    )


def _readable(xs):
    return jax.tree.map(functools.partial(_zero_where_unreadable, xs.mask), xs.x)


def _zero_where_unreadable(mask, leaf):
    """``[T, *batch, …]`` as f may read it. f's pullback gets 0 at a padded step, and 0 · NaN would be NaN.

    Other finite numbers stay, as f may be singular at zero. An integer, such as a token, may be in no table: it is one
    that a step reads, or 0 where no step does.
    """
    if jnp.issubdtype(cotangents.dtype_of(leaf), jax.dtypes.prng_key):
        return leaf
    leaf = jnp.asarray(leaf)
    mask, reads = _of_leaf(mask, leaf)
    if not cotangents.has_derivative(leaf):
        return jnp.where(jnp.any(mask), _as_taken(mask, leaf), jnp.zeros_like(leaf))
    reads = reads | (jnp.abs(leaf) <= float(jnp.finfo(leaf.dtype).max) ** 0.75)  # W_x x of more may be inf - inf
    return jnp.where(reads, leaf, jnp.zeros_like(leaf))


def _of_leaf(mask, leaf):
    """The mask of a leaf, and the same with the leaf's axes. A shared leaf is read where any member's step is real."""
    if leaf.shape[: mask.ndim] != mask.shape:
        mask = jnp.any(mask, axis=tuple(range(1, mask.ndim)))
    return mask, mask.reshape(mask.shape + (1,) * (leaf.ndim - mask.ndim))


def _project(inner, theta_h, xs):
    return xs.mask, inner.project(theta_h, _readable(xs))


def _step(inner, theta_h, projected_t, h_tm1):
    mask_t, u_t = projected_t
    h_t, residuals_t = inner.step(theta_h, u_t, h_tm1)
    return cotangents.where(mask_t, h_t, h_tm1), residuals_t


def _residuals(inner, theta_h, projected, hs_tm1, hs):
    # By the step: `inner.residuals` would need f's own h_t. At a padded step the state is another.
    return jax.vmap(inner.step, in_axes=(None, 0, 0))(theta_h, projected[1], hs_tm1)[1]


def _step_vjp(inner, theta_h, x_t, residuals_t, h_tm1, h_t, delta_t):
    to_f = cotangents.where(x_t.mask, delta_t, jax.tree.map(jnp.zeros_like, delta_t))
    real_t = without_time_axis(_readable(with_time_axis(x_t)))
    z_bar_t, h_bar_tm1 = inner.step_vjp(theta_h, real_t, residuals_t, h_tm1, h_t, to_f)
    # At a padded step z_bar_t is 0, as it is linear in delta_t. But the pullback was read at a state that is not f's:
    # it may have multiplied 0 by NaN.
    none = jax.tree.map(jnp.zeros_like, z_bar_t)
    return cotangents.where(x_t.mask, z_bar_t, none), cotangents.where(x_t.mask, h_bar_tm1, delta_t)


def _over_time(rule, theta_h, xs, hs_tm1, hs, residuals, z_bars):
    """A sum over time, by a rule of the inner cell.

    The rule is linear in z_bars: a padded step adds 0 where f has a derivative. So it is read as a step that was taken.
    Without any such step the sum is 0.
    """
    read = jax.tree.map(functools.partial(_as_taken, xs.mask), (xs.x, hs_tm1, hs, residuals))
    bar = rule(theta_h, *read, z_bars)
    return jax.tree.map(lambda leaf: jnp.where(jnp.any(xs.mask), leaf, jnp.zeros_like(leaf)), bar)


def _as_taken(mask, leaf):
    """``[T, *batch, …]`` with the first step that any member took in place of the padded ones."""
    leaf = jnp.asarray(leaf)
    mask, is_taken = _of_leaf(mask, leaf)
    steps = leaf.reshape(mask.size, *leaf.shape[mask.ndim :])
    taken = lax.dynamic_index_in_dim(steps, jnp.argmax(mask), keepdims=False)
    return jnp.where(is_taken, leaf, jnp.broadcast_to(taken, leaf.shape))


def _check(cell, theta_h, xs, h_0):
    _errors.flagged_input("masked", MaskedInput, xs, h_0)
    if cell.check is not None:
        cell.check(theta_h, xs.x, h_0)
