"""From a split over time to a cell, and back."""

import functools
import operator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxbptt import _axes
from jaxbptt._errors import arguments
from jaxbptt._errors.trees import same_float_dtype
from jaxbptt._precision import in_bfloat16, with_bfloat16_weights
from jaxbptt._time.loop import barrier
from jaxbptt._trees.cotangents import dtype_of, from_jax
from jaxbptt.cells import _errors
from jaxbptt.types import Cell, TimeSplit


def identity_output(h_t):
    """The output of a cell whose state is one vector: the state itself."""
    return h_t


def zero_state(params_type, state_type=None):
    """``initial_state`` of a cell: h_0 = 0, ``[*batch, n]``, in θ_h's dtype; one array a field of `state_type`."""
    return functools.partial(_zeros, params_type, state_type)


def _zeros(params_type, state_type, theta_h, batch_shape=()):
    is_batch = isinstance(batch_shape, tuple) and all(isinstance(size, int) and size >= 0 for size in batch_shape)
    if not isinstance(theta_h, params_type) or not is_batch:
        _errors.parameters(params_type, theta_h)
        _errors.batch_shape(batch_shape)
    if not all(hasattr(leaf, "shape") for leaf in theta_h):
        _errors.arrays(theta_h)
    zero = jnp.zeros((*batch_shape, theta_h.W_h.shape[1]), theta_h.W_h.dtype)
    return zero if state_type is None else state_type(*[zero] * len(state_type._fields))


def matrix_fits(params_type, gates, theta_h, xs, h_0):
    """Sizes of a cell whose parameters are W_x, W_h and biases with `gates` blocks of rows."""
    if not isinstance(theta_h, params_type):
        _errors.parameters(params_type, theta_h)
    if not all(hasattr(leaf, "shape") for leaf in theta_h):
        _errors.arrays(theta_h)
    n = np.shape(theta_h.W_h)[-1] if np.ndim(theta_h.W_h) == 2 else -1
    d = np.shape(theta_h.W_x)[-1] if np.ndim(theta_h.W_x) == 2 else -1
    expected = {"W_x": (gates * n, d), "W_h": (gates * n, n)}
    for field, leaf in theta_h._asdict().items():
        wanted = expected.get(field, (gates * n,))
        if np.shape(leaf) != wanted or n < 1 or d < 0:
            rows = "n" if gates == 1 else f"{gates}n"
            layout = {"W_x": f"[{rows}, d]", "W_h": f"[{rows}, n]"}.get(field, f"[{rows}]")
            raise ValueError(
                f"`theta_h.{field}` must have shape {layout}: got {np.shape(leaf)} beside "
                f"W_h.shape={np.shape(theta_h.W_h)}; make parameters with `cell.init`"
            )
    if not hasattr(xs, "shape"):
        raise TypeError(f"`xs` must be one array [T, *batch, d]: got {type(xs).__name__}")
    if np.ndim(xs) < 2 or xs.shape[-1] != d:
        raise ValueError(
            f"`xs` must have shape [T, *batch, d] with d={d} as in theta_h.W_x.shape={np.shape(theta_h.W_x)}: "
            f"got xs.shape={np.shape(xs)}"
        )
    wanted = (*xs.shape[1:-1], n)
    for path, leaf in jax.tree.leaves_with_path(h_0):
        if np.shape(leaf) != wanted:
            raise ValueError(
                f"`h_0{jax.tree_util.keystr(path)}` must have shape [*batch, n] = {wanted}, with the batch of "
                f"xs.shape={np.shape(xs)}: got {np.shape(leaf)}; make one with "
                f"`initial_state(theta, batch_shape={wanted[:-1]})`"
            )
    dtypes = {dtype_of(leaf) for leaf in jax.tree.leaves((theta_h, xs, h_0))}
    if len(dtypes) > 1 or not jnp.issubdtype(theta_h.W_h.dtype, jnp.floating):
        for name, tree in (("theta_h", theta_h), ("xs", xs), ("h_0", h_0)):
            same_float_dtype(name, tree, theta_h.W_h.dtype, "theta_h.W_h")


with_time_axis = functools.partial(jax.tree.map, functools.partial(jnp.expand_dims, axis=0))
"""One step as a stack of one."""

without_time_axis = functools.partial(jax.tree.map, operator.itemgetter(0))
"""A stack of one as one step."""


def take_step(split: TimeSplit, theta_h, x_t, h_tm1):
    """``u_t, h_t, residuals_t`` of one step."""
    u_t = without_time_axis(split.project(theta_h, with_time_axis(x_t)))
    return u_t, *split.step(theta_h, u_t, h_tm1)


def checked(cell, theta_h, xs, h_0):
    """Checks the arguments of the recursion; returns h_0 as arrays."""
    if not isinstance(cell, Cell):
        arguments.cells("cell", (cell,))
    _axes.time_axis("xs", xs)
    if h_0 is None:
        raise TypeError("`h_0` must be a state: got None; make one with `cell.initial_state(theta_h, batch_shape)`")
    h_0 = jax.tree.map(jnp.asarray, h_0)
    if cell.check is not None:
        cell.check(theta_h, xs, h_0)
    single = _axes.state_without_batch(cell, theta_h)
    if single is not None and jax.tree.structure(h_0) != jax.tree.structure(single):
        _axes.state_tree(cell, theta_h, h_0)
    step = functools.partial(take_step, split_of(cell))
    _, h_1, _ = _axes.traced("cell.apply", step, theta_h, _axes.one_step(xs), h_0)
    if jax.tree.structure(h_1) != jax.tree.structure(h_0):
        raise TypeError(
            f"f must return the tree of its state: got {jax.tree.structure(h_1)}, "
            f"expected that of h_0, {jax.tree.structure(h_0)}"
        )
    for (path, before), after in zip(jax.tree.leaves_with_path(h_0), jax.tree.leaves(h_1), strict=True):
        if (before.shape, before.dtype) != (after.shape, after.dtype):
            raise (TypeError if before.shape == after.shape else ValueError)(
                f"`h_0{jax.tree_util.keystr(path)}` must have the shape and dtype that f returns, "
                f"{after.dtype}{list(after.shape)}: got {before.dtype}{list(before.shape)}"
            )
    return h_0


def cell_from_split(
    split: TimeSplit, *, init, initial_state, check, output=identity_output, mixed=None, draws=None
) -> Cell:
    """A cell whose `apply` and `vjp` are the pieces of `split`, put together for one step."""
    apply, vjp = functools.partial(_apply, split), functools.partial(_vjp, split)
    return Cell(init, initial_state, apply, vjp, output, split._replace(of=(apply, vjp)), check, mixed, draws)


def _apply(split, theta_h, x_t, h_tm1):
    return take_step(split, theta_h, x_t, h_tm1)[1]


def _vjp(split, theta_h, x_t, h_tm1, h_t, h_bar_t):
    xs, hs_tm1, hs = with_time_axis((x_t, h_tm1, h_t))
    residuals = split.residuals(theta_h, split.project(theta_h, xs), hs_tm1, hs)
    z_bar_t, h_bar_tm1 = split.step_vjp(theta_h, x_t, without_time_axis(residuals), h_tm1, h_t, h_bar_t)
    stack = theta_h, xs, hs_tm1, hs, residuals, with_time_axis(z_bar_t)
    return split.param_vjp(*stack), without_time_axis(split.input_vjp(*stack)), h_bar_tm1


def matrix_cell(split: TimeSplit, **members) -> Cell:
    """A cell whose products are all of `_algebra`. Weights in bfloat16 then give each of them bfloat16 operands."""
    return cell_from_split(split, **members, mixed=lambda cell: rounded(cell, with_bfloat16_weights, in_bfloat16))


def rounded(cell: Cell, wrap, operands) -> Cell:
    """The same cell with `wrap` around each of its functions, and other operands."""
    apply, vjp, split = wrap(cell.apply), wrap(cell.vjp), own_split(cell)
    if split is not None:
        pieces: Any = {name: wrap(piece) for name, piece in split._asdict().items() if callable(piece)}
        # A product rounds h_{t-1}, which is no affine map. A unit that reads itself alone is in no product.
        affine = split.affine and split.jacobian == "diagonal"
        split = split._replace(**pieces | {"operands": operands, "of": (apply, vjp), "affine": affine})
    return cell._replace(apply=apply, vjp=vjp, split=split, mixed=lambda cell: cell)


def own_split(cell: Cell) -> TimeSplit | None:
    """The cell's split over time, unless it is that of another `apply` and `vjp`."""
    return cell.split if split_of(cell) is cell.split else None


def split_of(cell: Cell) -> TimeSplit:
    """The cell's own split over time, or the one that `apply` and `vjp` imply.

    The implied split calls `vjp` twice. Inside the reverse scan it gives c_tᵀ delta_t; the compiler drops the rest.
    After the scan it gives the sums over time, with time as one more batch axis.
    """
    if cell.split is not None and cell.split.of == (cell.apply, cell.vjp):
        return cell.split
    return TimeSplit(
        project=lambda theta_h, xs: xs,
        step=functools.partial(_implied_step, cell),
        residuals=lambda theta_h, xs, hs_tm1, hs: (),
        step_vjp=functools.partial(_implied_step_vjp, cell),
        param_vjp=lambda *stack: _implied_sums(cell, *stack)[0],
        input_vjp=lambda *stack: _implied_sums(cell, *stack)[1],
        of=(cell.apply, cell.vjp),
    )


def _implied_step(cell, theta_h, x_t, h_tm1):
    return barrier(cell.apply(theta_h, x_t, h_tm1)), ()


def _implied_step_vjp(cell, theta_h, x_t, residuals_t, h_tm1, h_t, delta_t):
    _, _, h_bar_tm1 = cell.vjp(theta_h, x_t, h_tm1, h_t, delta_t)
    return delta_t, barrier(from_jax(h_bar_tm1))


def _implied_sums(cell, theta_h, xs, hs_tm1, hs, residuals, deltas):
    return from_jax(cell.vjp(theta_h, xs, hs_tm1, hs, deltas)[:2])
