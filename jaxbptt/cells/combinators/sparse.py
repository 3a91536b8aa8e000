"""A cell of which some weights are always zero.

    h_t = f(x_t, h_{t-1}; M ∘ θ_h),   M of zeros and ones, fixed

Pullback: that of f at M ∘ θ_h, and theta_bar = M ∘ (theta_bar of f).
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxbptt._errors import arguments
from jaxbptt._factory import factory
from jaxbptt.cells import _errors
from jaxbptt.cells._from_split import cell_from_split, split_of
from jaxbptt.cells.combinators.mixed_precision import mixed_precision, with_members_of
from jaxbptt.types import Cell, PyTree, TimeSplit


class _Masks(NamedTuple):
    """Masks as a cached factory can take them: bytes, and ``None`` where a leaf is dense."""

    structure: Any
    leaves: tuple


def _hashable(make: Callable[[Cell, Any], Cell]) -> Callable[[Cell, PyTree], Cell]:
    @functools.wraps(make)
    def call(cell, masks):
        leaves, structure = jax.tree.flatten(masks, is_leaf=_is_none)
        _errors.masks_of_weights(leaves)
        kept = tuple(None if mask is None else (np.shape(mask), np.asarray(mask).tobytes()) for mask in leaves)
        return make(cell, _Masks(structure, kept))

    return call


@_hashable
@factory
def sparse(cell: Cell, masks: PyTree) -> Cell:
    """The same cell with some weights fixed at zero: ``f(x_t, h_{t-1}; M ∘ θ_h)``.

    The gradient of an absent weight is exactly zero, and ``init`` gives it as zero; whatever θ_h holds there counts as
    zero. Exact. The products stay dense: what gets cheaper are `estimators.rtrl` and `snap`, which leave out what an
    absent weight would carry.

    Args:
        cell: the `Cell` that takes the steps.
        masks: a tree like θ_h of NumPy arrays of booleans, True where a weight is; ``None`` at a leaf that is dense.

    Returns:
        A `Cell` of the same parameters, inputs and states. Equal masks give the same object.

    Raises:
        TypeError, ValueError: when `cell` is not a `Cell`, or the masks are no booleans; when used, for a θ_h of
            another tree or shapes.

    >>> from jaxbptt import cells
    >>> masks = cells.LinearParams(W_x=None, W_h=np.eye(3, dtype=bool))
    >>> cell = sparse(cells.linear(), masks)
    >>> theta_h = cells.LinearParams(W_x=jnp.ones((3, 1)), W_h=jnp.ones((3, 3)))
    >>> cell.apply(theta_h, jnp.ones(1), jnp.arange(3.0)).tolist()  # of itself alone
    [1.0, 2.0, 3.0]
    """
    arguments.cells("cell", (cell,))
    inner, masked = split_of(cell), functools.partial(_masked, masks)
    pieces = (inner.project, inner.step, inner.residuals, inner.step_vjp)
    project, step, residuals, step_vjp = (functools.partial(_at, masked, piece) for piece in pieces)
    operands = masked if inner.operands is None else functools.partial(_at, masked, inner.operands)
    return cell_from_split(
        TimeSplit(
            project, step, residuals, step_vjp,
            param_vjp=functools.partial(_param_vjp, masked, inner),
            input_vjp=functools.partial(_at, masked, inner.input_vjp),
            operands=operands, jacobian=inner.jacobian, affine=inner.affine,
        ),
        init=functools.partial(_init, masks, cell),
        initial_state=functools.partial(_at, masked, cell.initial_state),
        check=functools.partial(_check, masks, cell),
        output=cell.output,
        draws=cell.draws,
        mixed=lambda whole: with_members_of(whole, _sparse(mixed_precision(cell), masks)),
    )  # fmt: skip


_sparse: Any = vars(sparse)["__wrapped__"]  # with the masks as they are kept


def _masked(masks, theta_h):
    leaves, structure = jax.tree.flatten(theta_h, is_leaf=_is_none)  # as is a cotangent's leaf without a derivative
    pairs = zip(masks.leaves, leaves, strict=True)
    return structure.unflatten([leaf if mask is None else _where(mask, leaf) for mask, leaf in pairs])


def _where(mask, leaf):
    return jnp.where(_array(mask), leaf, jnp.zeros_like(leaf))


def _array(mask):
    return np.frombuffer(mask[1], bool).reshape(mask[0])


def _at(masked, function, theta_h, *arguments):
    return function(masked(theta_h), *arguments)


def _param_vjp(masked, inner, theta_h, *stack):
    return masked(inner.param_vjp(masked(theta_h), *stack))


def _init(masks, cell, key, input_size, hidden_size, dtype=jnp.float32):
    theta_h = cell.init(key, input_size, hidden_size, dtype)
    _fits(masks, theta_h)
    return _masked(masks, theta_h)


def _check(masks, cell, theta_h, xs, h_0):
    _fits(masks, theta_h)
    if cell.check is not None:
        cell.check(theta_h, xs, h_0)


def _fits(masks, theta_h):
    _errors.masks_fit(masks.structure, [None if mask is None else mask[0] for mask in masks.leaves], theta_h)


def _is_none(leaf):
    return leaf is None
