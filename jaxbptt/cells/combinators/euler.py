"""A cell as an Euler step of its own length, with noise if wanted: dh = (f(x, h) - h) dt + σ dW.

    h_t = h_{t-1} + dt_t (f_t - h_{t-1}) + σ √dt_t ε_t,      f_t = f(x_t, h_{t-1}),      ε_t ~ N(0, 1)

Pullback: dt_t ∘ delta_t goes through f, (1 - dt_t) ∘ delta_t to h_{t-1}. dt_t gets the sum over all units of
(f_t - h_{t-1}) ∘ delta_t. The increment σ √dt_t ε_t of Brownian motion is data: it has no derivative.
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
from jaxbptt.cells._from_split import cell_from_split, split_of
from jaxbptt.cells.combinators.mixed_precision import mixed_precision, with_members_of
from jaxbptt.types import Array, Cell, Keyed, TimeSplit


class TimedInput(NamedTuple):
    """``x [T, *batch, …]``, and ``dt [T]`` or ``[T, *batch]``: how long each step is.

    >>> stamps = jnp.array([0.0, 1.0, 1.5, 4.0])
    >>> TimedInput(x=jnp.ones((3, 4)), dt=jnp.diff(stamps)).dt.tolist()
    [1.0, 0.5, 2.5]
    """

    x: Any
    dt: Array


@factory
def euler(cell: Cell, noise: float = 0.0) -> Cell:
    """The same cell by steps of any length, ``TimedInput(x, dt)``, and with noise, ``Keyed(x, key)``.

    ``h_t = h_{t-1} + dt_t (f(x_t, h_{t-1}) - h_{t-1}) + noise √dt_t ε_t``, the Euler-Maruyama scheme. x alone is a step
    of dt = 1, which is f. Without a key there is no noise. The leak of `leaky` becomes α dt_t. The gradient is exact
    for the noise drawn. A step costs that of the inner cell and a few products of units. It keeps f_t for the pullback.

    Args:
        cell: the `Cell` that is f. It draws no random numbers of its own.
        noise: σ, the standard deviation of what a unit gains in a time of 1. The noise σ_h √(2/τ) dW of a rate network
            with leak α is ``noise = σ_h * (2 * α) ** 0.5``.

    Returns:
        A `Cell` with the parameters and state of the inner one. Its inputs are x, ``TimedInput(x, dt)``, or ``Keyed``
        of either.

    Raises:
        TypeError, ValueError: when `cell` is not a `Cell`, or `noise` no number of at least 0. When used, if dt or key
            are of another kind, or have other axes than those of time and batch.

    Notes:
        `jaxbptt.check_cell` objects to noise and dt together, as its differences in dt see the noise grow.

        A dt ``[T, *batch]`` looks like an input with features: pass `h_0`, `mask` or `lengths` with it.

    >>> from jaxbptt import cells, initializers
    >>> cell = euler(cells.leaky(alpha=0.5, W_h_init=initializers.zeros), noise=0.1)
    >>> theta_h = cell.init(jax.random.key(0), input_size=3, hidden_size=1)
    >>> x_t = TimedInput(jnp.zeros(3), dt=jnp.array(0.5))
    >>> cell.apply(theta_h, x_t, jnp.ones(1)).tolist()
    [0.75]
    >>> cell.apply(theta_h, Keyed(x_t, jax.random.key(1)), jnp.ones(1)).item() == 0.75
    False
    """
    arguments.cells("cell", (cell,))
    _errors.draws_already("euler", cell)
    arguments.numbers(noise=noise)
    arguments.at_least("noise", noise, 0)
    inner = split_of(cell)
    pieces: Any = (_project, functools.partial(_step, noise), _residuals, _step_vjp, _param_vjp, _input_vjp)
    return cell_from_split(
        TimeSplit(
            *(functools.partial(piece, inner) for piece in pieces),
            operands=inner.operands,
            jacobian=inner.jacobian,  # (1 - dt_t) 1 + dt_t c_t of f
            affine=inner.affine,
        ),
        init=cell.init,
        initial_state=cell.initial_state,
        check=functools.partial(_check, cell),
        output=cell.output,
        draws="step" if noise else None,
        mixed=lambda whole: with_members_of(whole, euler(mixed_precision(cell), noise)),
    )


def _parts(xs):
    """x, dt and key, ``None`` where there is none."""
    xs, key = xs if isinstance(xs, Keyed) else (xs, None)
    x, dt = xs if isinstance(xs, TimedInput) else (xs, None)
    return x, dt, key


def _project(inner, theta_h, xs):
    x, dt, key = _parts(xs)
    return inner.project(theta_h, x), dt, key


def _step(noise, inner, theta_h, projected_t, h_tm1):
    u_t, dt_t, key_t = projected_t
    f_t, residuals_t = inner.step(theta_h, u_t, h_tm1)
    h_t = f_t if dt_t is None else jax.tree.map(functools.partial(_part_of_the_way, dt_t), h_tm1, f_t)
    if key_t is not None:
        leaves, structure = jax.tree.flatten(h_t)
        h_t = structure.unflatten([_disturbed(noise, dt_t, key_t, k, leaf) for k, leaf in enumerate(leaves)])
    return h_t, (f_t, residuals_t)


def _spread(value, leaf):
    """One number a member, or one for all of them, with the axes of a leaf of the state."""
    return value.reshape(value.shape + (1,) * (leaf.ndim - value.ndim)).astype(leaf.dtype)


def _part_of_the_way(dt_t, h, f):
    return h + _spread(dt_t, h) * (f - h) if cotangents.has_derivative(h) else f


def _disturbed(noise, dt_t, key_t, k, leaf):
    """One key draws for all members, or each member has its own."""
    if not cotangents.has_derivative(leaf):
        return leaf

    def drawn(key):
        return jax.random.normal(jax.random.fold_in(key, k), leaf.shape[key_t.ndim :], leaf.dtype)

    increment = noise * jax.vmap(drawn)(key_t.reshape(-1)).reshape(leaf.shape)
    return leaf + (increment if dt_t is None else jnp.sqrt(_spread(lax.stop_gradient(dt_t), leaf)) * increment)


def _residuals(inner, theta_h, projected, hs_tm1, hs):
    # By the step: `inner.residuals` would need f's own state, which h_t is not.
    return jax.vmap(inner.step, in_axes=(None, 0, 0))(theta_h, projected[0], hs_tm1)


def _step_vjp(inner, theta_h, x_t, residuals_t, h_tm1, h_t, delta_t):
    (x, dt_t, _), (f_t, of_f) = _parts(x_t), residuals_t
    if dt_t is None:
        z_bar_t, h_bar_tm1 = inner.step_vjp(theta_h, x, of_f, h_tm1, f_t, delta_t)
        return (z_bar_t, None), h_bar_tm1
    to_f = jax.tree.map(lambda bar: _spread(dt_t, bar) * bar, delta_t)
    z_bar_t, h_bar_tm1 = inner.step_vjp(theta_h, x, of_f, h_tm1, f_t, to_f)
    return (z_bar_t, delta_t), cotangents.add(h_bar_tm1, jax.tree.map(jnp.subtract, delta_t, to_f))


def _param_vjp(inner, theta_h, xs, hs_tm1, hs, residuals, z_bars):
    fs, of_f = residuals
    return inner.param_vjp(theta_h, _parts(xs)[0], hs_tm1, fs, of_f, z_bars[0])


def _input_vjp(inner, theta_h, xs, hs_tm1, hs, residuals, z_bars):
    (x, dt, key), (fs, of_f), (z_bars, deltas) = _parts(xs), residuals, z_bars
    bar = inner.input_vjp(theta_h, x, hs_tm1, fs, of_f, z_bars)
    if dt is not None:
        bar = TimedInput(bar, _dt_bar(dt, hs_tm1, fs, deltas))
    return bar if key is None else Keyed(bar, None)


def _dt_bar(dt, hs_tm1, fs, deltas):
    ways = jax.tree.map(lambda h, f: f - h if cotangents.has_derivative(h) else None, hs_tm1, fs)
    bars = jax.tree.leaves(jax.tree.map(lambda way, delta: jnp.real(way * delta), ways, deltas))
    parts = [jnp.sum(bar, axis=tuple(range(dt.ndim, bar.ndim))).astype(dt.dtype) for bar in bars]
    return functools.reduce(jnp.add, parts)


def _check(cell, theta_h, xs, h_0):
    x, dt, key = _parts(xs)
    _errors.times_and_keys(dt, key, h_0)
    if cell.check is not None:
        cell.check(theta_h, x, h_0)
