"""From a division over time to a cell and back."""

import jax
import jax.numpy as jnp

from jaxbptt._cotangents import from_jax
from jaxbptt._loop import apart
from jaxbptt._precision import in_bfloat16, with_bfloat16_weights
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

    def apply(theta_h, x_t, h_tm1):
        u_t = without_time_axis(split.project(theta_h, with_time_axis(x_t)))
        h_t, _ = split.step(theta_h, u_t, h_tm1)
        return h_t

    def vjp(theta_h, x_t, h_tm1, h_t, h_bar_t):
        xs, hs_tm1, hs = with_time_axis((x_t, h_tm1, h_t))
        gates = split.gates(theta_h, split.project(theta_h, xs), hs_tm1, hs)
        z_bar_t, h_bar_tm1 = split.step_vjp(theta_h, without_time_axis(gates), h_tm1, h_t, h_bar_t)
        z_bars = with_time_axis(z_bar_t)
        theta_bar = split.param_vjp(theta_h, xs, hs_tm1, gates, z_bars)
        x_bar_t = without_time_axis(split.input_vjp(theta_h, xs, hs_tm1, gates, z_bars))
        return theta_bar, x_bar_t, h_bar_tm1

    return Cell(init, initial_state, apply, vjp, output, split, check, mixed)


def matrix_cell(split: TimeSplit, **members) -> Cell:
    """A cell with no products but those of `_algebra`: with its weights in bfloat16 they all have such operands."""

    def mixed(cell):
        return cell._replace(
            apply=with_bfloat16_weights(cell.apply),
            vjp=with_bfloat16_weights(cell.vjp),
            split=None if cell.split is None else wrapped(cell.split, with_bfloat16_weights, in_bfloat16),
            mixed=lambda cell: cell,
        )

    return cell_from_split(split, **members, mixed=mixed)


def wrapped(split: TimeSplit, wrap, operands) -> TimeSplit:
    """The same division with `wrap` around each of its functions, and other operands."""
    functions = {name: wrap(function) for name, function in split._asdict().items() if name != "operands"}
    return TimeSplit(**functions, operands=operands)


def split_of(cell: Cell) -> TimeSplit:
    """The cell's own division over time, or the one that its pullback implies.

    The second calls `vjp` twice: inside the reverse scan for c_tᵀ delta_t alone (the compiler drops the rest),
    and once, with time as one more batch axis, for the sums over time.
    """
    if cell.split is not None:
        return cell.split

    def step(theta_h, x_t, h_tm1):
        h_t = apart(cell.apply(theta_h, x_t, h_tm1))
        return h_t, (x_t, h_t)

    def step_vjp(theta_h, gates_t, h_tm1, h_t, delta_t):
        _, _, h_bar_tm1 = cell.vjp(theta_h, gates_t[0], h_tm1, h_t, delta_t)
        return delta_t, apart(from_jax(h_bar_tm1))

    def param_vjp(theta_h, xs, hs_tm1, gates, deltas):
        return from_jax(cell.vjp(theta_h, xs, hs_tm1, gates[1], deltas)[0])

    def input_vjp(theta_h, xs, hs_tm1, gates, deltas):
        return from_jax(cell.vjp(theta_h, xs, hs_tm1, gates[1], deltas)[1])

    return TimeSplit(
        project=lambda theta_h, xs: xs,
        step=step,
        gates=lambda theta_h, xs, hs_tm1, hs: (xs, hs),
        step_vjp=step_vjp,
        param_vjp=param_vjp,
        input_vjp=input_vjp,
    )
