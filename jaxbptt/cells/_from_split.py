"""From a division over time to a cell and back."""

import functools

import jax
import jax.numpy as jnp

from jaxbptt._precision import in_bfloat16, with_bfloat16_weights
from jaxbptt._time.loop import apart
from jaxbptt._trees.cotangents import from_jax
from jaxbptt.cells import _errors
from jaxbptt.types import Cell, TimeSplit


def identity_output(h_t):
    """What g reads when the state is one vector: the state."""
    return h_t


def zero_state(params_type):
    """``initial_state`` of a cell with one vector as its state: h_0 = 0, ``[*batch, n]``, of θ_h's dtype."""

    def initial_state(theta_h, batch_shape=()):
        _errors.parameters(params_type, theta_h)
        _errors.batch_shape(batch_shape)
        return jnp.zeros((*batch_shape, theta_h.W_h.shape[1]), theta_h.W_h.dtype)

    return initial_state


def with_time_axis(tree):
    """One step as a stack of one."""
    return jax.tree.map(lambda leaf: jnp.expand_dims(leaf, 0), tree)


def without_time_axis(tree):
    """A stack of one as one step."""
    return jax.tree.map(lambda leaf: leaf[0], tree)


def cell_from_split(split: TimeSplit, *, init, initial_state, check, output=identity_output, mixed=None) -> Cell:
    """A cell whose `apply` and `vjp` are the pieces of `split`, put together for one step."""
    apply, vjp = functools.partial(_apply, split), functools.partial(_vjp, split)
    return Cell(init, initial_state, apply, vjp, output, split._replace(of=(apply, vjp)), check, mixed)


def _apply(split, theta_h, x_t, h_tm1):
    u_t = without_time_axis(split.project(theta_h, with_time_axis(x_t)))
    h_t, _ = split.step(theta_h, u_t, h_tm1)
    return h_t


def _vjp(split, theta_h, x_t, h_tm1, h_t, h_bar_t):
    xs, hs_tm1, hs = with_time_axis((x_t, h_tm1, h_t))
    residuals = split.residuals(theta_h, split.project(theta_h, xs), hs_tm1, hs)
    z_bar_t, h_bar_tm1 = split.step_vjp(theta_h, x_t, without_time_axis(residuals), h_tm1, h_t, h_bar_t)
    stack = theta_h, xs, hs_tm1, hs, residuals, with_time_axis(z_bar_t)
    return split.param_vjp(*stack), without_time_axis(split.input_vjp(*stack)), h_bar_tm1


def matrix_cell(split: TimeSplit, **members) -> Cell:
    """A cell with no products but those of `_algebra`: with its weights in bfloat16 they all have such operands."""
    return cell_from_split(split, **members, mixed=lambda cell: rounded(cell, with_bfloat16_weights, in_bfloat16))


def rounded(cell: Cell, wrap, operands) -> Cell:
    """The same cell with `wrap` around each of its functions, and other operands."""
    apply, vjp, split = wrap(cell.apply), wrap(cell.vjp), own_split(cell)
    if split is not None:
        pieces = {name: wrap(piece) for name, piece in split._asdict().items() if name not in ("operands", "of")}
        split = TimeSplit(**pieces, operands=operands, of=(apply, vjp))
    return cell._replace(apply=apply, vjp=vjp, split=split, mixed=lambda cell: cell)


def own_split(cell: Cell) -> TimeSplit | None:
    """The cell's division over time, unless it is that of another `apply` and `vjp`."""
    return cell.split if cell.split is not None and cell.split.of == (cell.apply, cell.vjp) else None


def split_of(cell: Cell) -> TimeSplit:
    """The cell's own division over time, or the one that `apply` and `vjp` imply.

    The second calls `vjp` twice: inside the reverse scan for c_tᵀ delta_t alone (the compiler drops the rest),
    and once, with time as one more batch axis, for the sums over time.
    """
    own = own_split(cell)
    if own is not None:
        return own
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
    return apart(cell.apply(theta_h, x_t, h_tm1)), ()


def _implied_step_vjp(cell, theta_h, x_t, residuals_t, h_tm1, h_t, delta_t):
    _, _, h_bar_tm1 = cell.vjp(theta_h, x_t, h_tm1, h_t, delta_t)
    return delta_t, apart(from_jax(h_bar_tm1))


def _implied_sums(cell, theta_h, xs, hs_tm1, hs, residuals, deltas):
    return from_jax(cell.vjp(theta_h, xs, hs_tm1, hs, deltas)[:2])
