"""A cell whose units, by chance, keep the value they have.

    h_t = s_t ∘ h_{t-1} + (1 - s_t) ∘ f(x_t, h_{t-1}),      s_t ∈ {0, 1}, drawn by key;  s_t = p without a key

Pullback: (1 - s_t) ∘ delta_t goes through f, s_t ∘ delta_t to h_{t-1}. s_t is data.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp

from jaxbptt._errors import arguments
from jaxbptt._factory import factory
from jaxbptt._trees import cotangents
from jaxbptt.cells import _errors
from jaxbptt.cells._from_split import cell_from_split, split_of
from jaxbptt.cells.combinators.mixed_precision import mixed_precision, with_members_of
from jaxbptt.types import Cell, Keyed, TimeSplit


@factory
def zoneout(cell: Cell, rate: float | tuple = 0.1) -> Cell:
    """The same cell in which each number of the state stays as it is with probability `rate`, at each step.

    ``h_t = s_t ∘ h_{t-1} + (1 - s_t) ∘ f(x_t, h_{t-1})``. F, estimators and ``model.apply`` draw s_t by their key.
    Without a key s_t is its mean, the rate. The gradient is exact for what was drawn. A step costs that of the inner
    cell and a few products of units. It keeps f and s_t for the pullback.

    Args:
        cell: the `Cell` that is f. It draws no random numbers of its own.
        rate: p, from 0 to below 1. Or one for each leaf of the state, as in ``LSTMState(h=0.05, c=0.5)``.

    Returns:
        A `Cell` with the parameters and state of the inner one. Its inputs are x, or ``Keyed(x, key)``.

    Raises:
        TypeError, ValueError: when `cell` is not a `Cell`, or draws; for a rate beyond [0, 1). When used, for keys of
            another kind or other axes, or rates that are no tree like the state.

    Source: Krueger et al. (2017), Zoneout: regularizing RNNs by randomly preserving hidden activations.

    >>> from jaxbptt import cells
    >>> cell = zoneout(cells.gru(), 0.5)
    >>> theta_h = cell.init(jax.random.key(0), input_size=3, hidden_size=200)
    >>> h_1 = cell.apply(theta_h, Keyed(jnp.ones(3), jax.random.key(1)), jnp.zeros(200))
    >>> 60 < jnp.sum(h_1 == 0).item() < 140
    True
    """
    arguments.cells("cell", (cell,))
    _errors.draws_already("zoneout", cell)
    _errors.rates("rate", jax.tree.leaves(rate))
    inner = split_of(cell)
    pieces: Any = (_project, functools.partial(_step, rate), _residuals, _step_vjp, _param_vjp, _input_vjp)
    project, step, residuals, step_vjp, param_vjp, input_vjp = (functools.partial(piece, inner) for piece in pieces)
    residuals = functools.partial(residuals, step)
    return cell_from_split(
        TimeSplit(
            project, step, residuals, step_vjp, param_vjp, input_vjp,
            operands=inner.operands, jacobian=inner.jacobian, affine=inner.affine,
        ),
        init=cell.init,
        initial_state=cell.initial_state,
        check=functools.partial(_check, cell, rate),
        output=cell.output,
        mixed=lambda whole: with_members_of(whole, zoneout(mixed_precision(cell), rate)),
        draws="step",
    )  # fmt: skip


def _parts(xs):
    return xs if isinstance(xs, Keyed) else Keyed(xs, None)


def _project(inner, theta_h, xs):
    x, key = _parts(xs)
    return inner.project(theta_h, x), key


def _step(rate, inner, theta_h, projected_t, h_tm1):
    u_t, key_t = projected_t
    f_t, residuals_t = inner.step(theta_h, u_t, h_tm1)
    stays_t = _stays(rate, key_t, f_t)
    return _mixed(stays_t, h_tm1, f_t), (f_t, stays_t, residuals_t)


def _stays(rate, key_t, f_t):
    """s_t of each leaf, ``None`` where the leaf has no derivative: it is always new."""
    leaves, structure = jax.tree.flatten(f_t)
    rates = jax.tree.leaves(rate)
    rates = rates * len(leaves) if len(rates) == 1 else rates
    drawn = [_drawn(p, key_t, k, leaf) for k, (p, leaf) in enumerate(zip(rates, leaves, strict=True))]
    return structure.unflatten(drawn)


def _drawn(p, key_t, k, leaf):
    """One key draws for all members, or each member has its own."""
    if not cotangents.has_derivative(leaf):
        return None
    if key_t is None:
        return jnp.full(leaf.shape, p, leaf.dtype)

    def bernoulli(key):
        return jax.random.bernoulli(jax.random.fold_in(key, k), p, leaf.shape[key_t.ndim :])

    return jax.vmap(bernoulli)(key_t.reshape(-1)).reshape(leaf.shape).astype(leaf.dtype)


def _mixed(stays, old, new):
    """``s ∘ old + (1 - s) ∘ new``."""
    leaves, structure = jax.tree.flatten(new)
    each = zip(structure.flatten_up_to(stays), jax.tree.leaves(old), leaves, strict=True)
    return structure.unflatten([new if s is None else s * old + (1 - s) * new for s, old, new in each])


def _residuals(inner, step, theta_h, projected, hs_tm1, hs):
    # By the step: `inner.residuals` would need f's own state, which h_t is not.
    return jax.vmap(step, in_axes=(None, 0, 0))(theta_h, projected, hs_tm1)[1]


def _step_vjp(inner, theta_h, x_t, residuals_t, h_tm1, h_t, delta_t):
    f_t, stays_t, of_f = residuals_t
    none = jax.tree.map(jnp.zeros_like, delta_t)
    to_f, stayed = _mixed(stays_t, none, delta_t), _mixed(stays_t, delta_t, none)
    z_bar_t, h_bar_tm1 = inner.step_vjp(theta_h, _parts(x_t).x, of_f, h_tm1, f_t, to_f)
    return z_bar_t, cotangents.add(h_bar_tm1, stayed)


def _param_vjp(inner, theta_h, xs, hs_tm1, hs, residuals, z_bars):
    fs, _, of_f = residuals
    return inner.param_vjp(theta_h, _parts(xs).x, hs_tm1, fs, of_f, z_bars)


def _input_vjp(inner, theta_h, xs, hs_tm1, hs, residuals, z_bars):
    fs, _, of_f = residuals
    bar = inner.input_vjp(theta_h, _parts(xs).x, hs_tm1, fs, of_f, z_bars)
    return Keyed(bar, None) if isinstance(xs, Keyed) else bar


def _check(cell, rate, theta_h, xs, h_0):
    x, key = _parts(xs)
    _errors.times_and_keys(None, key, h_0)
    _errors.one_rate_a_leaf(jax.tree.leaves(rate), h_0)
    if cell.check is not None:
        cell.check(theta_h, x, h_0)
