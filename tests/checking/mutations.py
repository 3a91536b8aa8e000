"""Wrong rules of cells: a function from a cell to a wrong one, and the leaf at which that shows."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp


class Mutation(NamedTuple):
    name: str
    cells: str
    leaf: str
    mutate: Callable


MUTATIONS: list[Mutation] = []


def mutation(cells, leaf):
    def add(function):
        MUTATIONS.append(Mutation(function.__name__.removeprefix("_"), cells, leaf, function))
        return function

    return add


def after_vjp(change):
    """The cell whose `vjp` gives ``change(theta_bar, x_bar_t, h_bar_tm1)``."""

    def mutate(cell):
        return cell._replace(vjp=lambda *arguments: change(*cell.vjp(*arguments)))

    return mutate


def with_split(cell, **functions):
    return cell._replace(split=cell.split._replace(**functions))


def transposed(theta_h):
    """W_h with each gate's block transposed: the same shape, so nothing but the numbers gives it away."""
    n = theta_h.W_h.shape[1]
    blocks = jnp.split(theta_h.W_h, theta_h.W_h.shape[0] // n)
    return theta_h._replace(W_h=jnp.concatenate([block.T for block in blocks]))


def blocks_swapped(rows, i, j):
    """Two gates' blocks of rows in each other's place."""
    n = rows.shape[0] // (4 if rows.shape[0] % 4 == 0 else 3)
    order = list(range(rows.shape[0] // n))
    order[i], order[j] = order[j], order[i]
    blocks = jnp.split(rows, len(order))
    return jnp.concatenate([blocks[k] for k in order])


EVERY = "linear elman-tanh elman-relu elman-sigmoid gru lstm"
BIASED = "elman-tanh elman-relu elman-sigmoid gru lstm"
FOUR = "linear elman-tanh gru lstm"  # relu and sigmoid share all but φ' with tanh


@mutation(EVERY, "h_tm1")
def _vjp_transposed(cell):
    def vjp(theta_h, *step):
        theta_bar, x_bar_t, _ = cell.vjp(theta_h, *step)
        return theta_bar, x_bar_t, cell.vjp(transposed(theta_h), *step)[2]

    return cell._replace(vjp=vjp)


@mutation(FOUR, "theta_h.W_x")
def _vjp_twice_W_x_bar(cell):
    return after_vjp(lambda theta_bar, *rest: (theta_bar._replace(W_x=2 * theta_bar.W_x), *rest))(cell)


@mutation(FOUR, "theta_h.W_h")
def _vjp_wrong_sign(cell):
    return after_vjp(lambda theta_bar, *rest: (theta_bar._replace(W_h=-theta_bar.W_h), *rest))(cell)


@mutation(EVERY, r"theta_h.W_h\[0, 1\]")
def _vjp_one_element(cell):
    def change(theta_bar, *rest):
        return theta_bar._replace(W_h=theta_bar.W_h.at[0, 1].add(1e-9)), *rest

    return after_vjp(change)(cell)


@mutation(FOUR, "theta_h.W_x")
def _vjp_mean_over_the_batch(cell):
    """A sum over the batch is due."""
    return after_vjp(lambda theta_bar, *rest: (jax.tree.map(lambda leaf: leaf / 2, theta_bar), *rest))(cell)


@mutation(FOUR, "theta_h.W_x")
def _vjp_nan(cell):
    return after_vjp(lambda theta_bar, *rest: (theta_bar._replace(W_x=theta_bar.W_x.at[1, 1].set(jnp.nan)), *rest))(
        cell
    )


@mutation(EVERY, "x_t")
def _vjp_no_x_bar(cell):
    return after_vjp(lambda theta_bar, x_bar_t, h_bar_tm1: (theta_bar, 0 * x_bar_t, h_bar_tm1))(cell)


@mutation(FOUR, "no cotangent of the right shape for x_t")
def _vjp_none_for_x_bar(cell):
    return after_vjp(lambda theta_bar, x_bar_t, h_bar_tm1: (theta_bar, None, h_bar_tm1))(cell)


@mutation(FOUR, "no cotangent of the right shape for theta_h.W_h")
def _vjp_none_for_W_h_bar(cell):
    return after_vjp(lambda theta_bar, *rest: (theta_bar._replace(W_h=None), *rest))(cell)


@mutation(FOUR, "no cotangent of the right shape for theta_h.W_x")
def _vjp_wrong_shape(cell):
    return after_vjp(lambda theta_bar, *rest: (theta_bar._replace(W_x=theta_bar.W_x.T), *rest))(cell)


@mutation(BIASED, "theta_h.b")
def _vjp_no_bias_bar(cell):
    def change(theta_bar, *rest):
        field = theta_bar._fields[-1]
        return theta_bar._replace(**{field: 0 * getattr(theta_bar, field)}), *rest

    return after_vjp(change)(cell)


@mutation("elman-tanh elman-sigmoid elman-relu", "theta_h.W_x")
def _vjp_without_the_derivative_of_phi(cell):
    """The rule of the linear unit: φ' forgotten."""

    def vjp(theta_h, x_t, h_tm1, h_t, h_bar_t):
        theta_bar = type(theta_h)(h_bar_t.T @ x_t, h_bar_t.T @ h_tm1, jnp.sum(h_bar_t, 0))
        return theta_bar, h_bar_t @ theta_h.W_x, h_bar_t @ theta_h.W_h

    return cell._replace(vjp=vjp)


@mutation("gru lstm", "theta_h.W_x")
def _vjp_swapped_gates(cell):
    def change(theta_bar, *rest):
        return theta_bar._replace(W_x=blocks_swapped(theta_bar.W_x, 0, 1)), *rest

    return after_vjp(change)(cell)


@mutation("gru", "theta_h.b_h")
def _vjp_forgets_r_in_b_h_bar(cell):
    return after_vjp(lambda theta_bar, *rest: (theta_bar._replace(b_h=theta_bar.b_x), *rest))(cell)


@mutation("lstm", "theta_h.W_x")
def _vjp_forgets_c_bar(cell):
    """The path of c_t that doesn't go through h_t."""

    def vjp(theta_h, x_t, h_tm1, h_t, h_bar_t):
        return cell.vjp(theta_h, x_t, h_tm1, h_t, h_bar_t._replace(c=0 * h_bar_t.c))

    return cell._replace(vjp=vjp)


@mutation("lstm", r"h_tm1\.c")
def _vjp_keeps_all_memory(cell):
    """c_bar_{t-1} = f ∘ c_bar without f."""

    def vjp(theta_h, x_t, h_tm1, h_t, h_bar_t):
        theta_bar, x_bar_t, h_bar_tm1 = cell.vjp(theta_h, x_t, h_tm1, h_t, h_bar_t)
        return theta_bar, x_bar_t, h_bar_tm1._replace(c=h_bar_t.c)

    return cell._replace(vjp=vjp)


@mutation(EVERY, "full: ")
def _split_transposed(cell):
    def step_vjp(theta_h, *rest):
        return cell.split.step_vjp(transposed(theta_h), *rest)

    return with_split(cell, step_vjp=step_vjp)


@mutation(EVERY, "full: ")
def _split_forgets_the_past(cell):
    def step_vjp(*arguments):
        z_bar_t, h_bar_tm1 = cell.split.step_vjp(*arguments)
        return z_bar_t, jax.tree.map(jnp.zeros_like, h_bar_tm1)

    return with_split(cell, step_vjp=step_vjp)


@mutation(FOUR, r"full: theta_h\.W_h")
def _split_reads_h_t_instead_of_h_tm1(cell):
    def param_vjp(theta_h, xs, hs_tm1, *rest):
        later = jax.tree.map(lambda hs: jnp.roll(hs, -1, axis=0), hs_tm1)
        return cell.split.param_vjp(theta_h, xs, later, *rest)

    return with_split(cell, param_vjp=param_vjp)


@mutation(FOUR, r"full: theta_h\.W_h\[0, 1\]")
def _split_one_element(cell):
    def param_vjp(*arguments):
        theta_bar = cell.split.param_vjp(*arguments)
        return theta_bar._replace(W_h=theta_bar.W_h.at[0, 1].add(1e-9))

    return with_split(cell, param_vjp=param_vjp)


@mutation(FOUR, "full: xs")
def _split_no_xs_bar(cell):
    return with_split(cell, input_vjp=lambda *arguments: 0 * cell.split.input_vjp(*arguments))


@mutation(FOUR, r"full: theta_h\.W_x")
def _split_nan(cell):
    def param_vjp(*arguments):
        theta_bar = cell.split.param_vjp(*arguments)
        return theta_bar._replace(W_x=theta_bar.W_x * jnp.nan)

    return with_split(cell, param_vjp=param_vjp)


@mutation(BIASED, r"full: theta_h\.b")
def _split_no_bias_bar(cell):
    def param_vjp(*arguments):
        theta_bar = cell.split.param_vjp(*arguments)
        field = theta_bar._fields[-1]
        return theta_bar._replace(**{field: 0 * getattr(theta_bar, field)})

    return with_split(cell, param_vjp=param_vjp)


@mutation("elman-tanh elman-sigmoid gru lstm", "full: h_T")
def _split_projects_a_half(cell):
    """The division of f over time does not make f: a factor forgotten in `project`."""
    return with_split(cell, project=lambda *arguments: 0.5 * cell.split.project(*arguments))


@mutation("gru lstm", "full: theta_h")
def _split_residuals_without_the_past(cell):
    def residuals(theta_h, us, hs_tm1, hs):
        return cell.split.residuals(theta_h, us, jax.tree.map(jnp.zeros_like, hs_tm1), hs)

    return with_split(cell, residuals=residuals)


@mutation("gru lstm", "full: theta_h")
def _split_swapped_gates(cell):
    def residuals(*arguments):
        kept = cell.split.residuals(*arguments)
        return kept._replace(**dict(zip(kept._fields[:2], reversed(kept[:2]), strict=True)))

    return with_split(cell, residuals=residuals)


@mutation("gru", r"full: theta_h\.(W_h|b_h)")
def _split_forgets_r(cell):
    def param_vjp(theta_h, xs, hs_tm1, hs, gates, z_bars):
        return cell.split.param_vjp(theta_h, xs, hs_tm1, hs, gates._replace(r=jnp.ones_like(gates.r)), z_bars)

    return with_split(cell, param_vjp=param_vjp)


@mutation("gru", "full: theta_h")
def _split_forgets_the_direct_path(cell):
    """h_bar_{t-1} = W_hᵀ v_bar without z ∘ h_bar_t."""

    def step_vjp(theta_h, x_t, gates_t, h_tm1, h_t, delta_t):
        u_bar_t, h_bar_tm1 = cell.split.step_vjp(theta_h, x_t, gates_t, h_tm1, h_t, delta_t)
        return u_bar_t, h_bar_tm1 - gates_t.z * delta_t

    return with_split(cell, step_vjp=step_vjp)
