"""A cell whose initial state is learned.

    h_t = f(x_t, h_{t-1}; θ_h.cell),      h_0 = θ_h.h_0

Pullback: θ_h.cell has that of f. No step reads θ_h.h_0; its cotangent is ∂F/∂h_0, summed over the batch.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxbptt._errors import arguments
from jaxbptt._factory import factory
from jaxbptt._trees import cotangents
from jaxbptt.cells import _errors
from jaxbptt.cells._from_split import cell_from_split, split_of
from jaxbptt.cells.combinators.mixed_precision import mixed_precision, with_members_of
from jaxbptt.types import Cell, PyTree, TimeSplit


class LearnedStart(NamedTuple):
    """θ_h of the inner cell, and h_0 of one sequence, ``None`` at a leaf without a derivative.

    >>> import jaxbptt as jb
    >>> theta_h = jb.cells.learned_start(jb.cells.elman()).init(jax.random.key(0), input_size=3, hidden_size=5)
    >>> theta_h.cell.W_h.shape, theta_h.h_0.shape
    ((5, 5), (5,))
    """

    cell: PyTree
    h_0: PyTree


@factory
def learned_start(cell: Cell) -> Cell:
    """The same cell with an initial state that is learned: ``h_0 = theta_h.h_0`` for every member of a batch.

    If no h_0 is given, the gradient of ``theta_h.h_0`` is ∂F/∂h_0, summed over the batch. Leaves without a derivative,
    such as counters and keys, begin as in the inner cell. As exact as the inner cell, at no cost in a step.
    ``resettable(learned_start(cell))`` begins each sequence of a stream with the learned state.

    Args:
        cell: the `Cell` that takes the steps.

    Returns:
        A `Cell` with parameters `LearnedStart`. Its ``init`` takes both parts from the inner cell.

    Raises:
        TypeError, ValueError: when `cell` is not a `Cell`. When used, if θ_h is not a `LearnedStart`, or its h_0 is
            unlike the inner cell's.

    >>> from jaxbptt import cells
    >>> cell = learned_start(cells.linear())
    >>> theta_h = LearnedStart(cells.LinearParams(W_x=jnp.eye(2), W_h=jnp.eye(2)), h_0=jnp.array([1.0, 2.0]))
    >>> cell.initial_state(theta_h, (3,)).tolist()
    [[1.0, 2.0], [1.0, 2.0], [1.0, 2.0]]
    """
    arguments.cells("cell", (cell,))
    inner = split_of(cell)
    pieces = (inner.project, inner.step, inner.residuals, inner.step_vjp, inner.input_vjp)
    project, step, residuals, step_vjp, input_vjp = (functools.partial(_of_inner, piece) for piece in pieces)
    operands = None if inner.operands is None else functools.partial(_operands, inner)
    param_vjp, declared = functools.partial(_param_vjp, inner), {"jacobian": inner.jacobian, "affine": inner.affine}
    return cell_from_split(
        TimeSplit(project, step, residuals, step_vjp, param_vjp, input_vjp, operands, **declared),
        init=functools.partial(_init, cell),
        initial_state=functools.partial(_initial_state, cell),
        check=functools.partial(_check, cell),
        output=cell.output,
        draws=cell.draws,
        mixed=lambda whole: with_members_of(whole, learned_start(mixed_precision(cell))),
    )


def _of_inner(function, theta_h, *arguments):
    return function(theta_h.cell, *arguments)


def _param_vjp(inner, theta_h, *stack):
    return LearnedStart(inner.param_vjp(theta_h.cell, *stack), cotangents.zeros(theta_h.h_0))


def _operands(inner, theta_h):
    return theta_h._replace(cell=inner.operands(theta_h.cell))


def _init(cell, key, input_size, hidden_size, dtype=jnp.float32):
    theta_h = cell.init(key, input_size, hidden_size, dtype)
    return LearnedStart(theta_h, _start(cell, theta_h))


def _start(cell, theta_h):
    return cotangents.differentiable(cell.initial_state(theta_h, ()))


def _initial_state(cell, theta_h, batch_shape=()):
    _errors.learned_start(LearnedStart, theta_h, functools.partial(_start, cell))
    begun = cell.initial_state(theta_h.cell, batch_shape)
    return jax.tree.map(lambda h, h_0: h if h_0 is None else jnp.broadcast_to(h_0, h.shape), begun, theta_h.h_0)


def _check(cell, theta_h, xs, h_0):
    _errors.learned_start(LearnedStart, theta_h, functools.partial(_start, cell))
    if cell.check is not None:
        cell.check(theta_h.cell, xs, h_0)
