"""Norms and spectral radii by power iteration: c_t is applied (jvp) and transposed (vjp), never formed.

‖c‖₂ from v ← cᵀc v, σ_1 = lim ‖c v‖/‖v‖; the spectral radius from v ← c v, log ρ = lim mean log growth (Gelfand).
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from jaxbptt import _axes
from jaxbptt._errors import arguments
from jaxbptt.adjoints.autodiff import trajectory
from jaxbptt.diagnostics import _members
from jaxbptt.types import Array, Cell, PyTree


class PowerIteration(NamedTuple):
    """``norms [T, *batch]``: ‖c_t‖₂; ``radii [T, *batch]``: the largest |eigenvalue| of c_t.

    >>> from jaxbptt import cells
    >>> theta_h = cells.LinearParams(W_x=jnp.ones((2, 1)), W_h=0.5 * jnp.eye(2))
    >>> found = power_iteration(cells.linear(), theta_h, jnp.ones((3, 1)), jnp.zeros(2))
    >>> found.norms.round(4).tolist()
    [0.5, 0.5, 0.5]
    """

    norms: Array
    radii: Array


class ProductPowerIteration(NamedTuple):
    """``log_norm [*batch]``: log ‖c_T … c_1‖₂; ``log_radius [*batch]``: log of its largest |eigenvalue|.

    >>> from jaxbptt import cells
    >>> theta_h = cells.LinearParams(W_x=jnp.ones((2, 1)), W_h=0.5 * jnp.eye(2))
    >>> found = product_power_iteration(cells.linear(), theta_h, jnp.ones((3, 1)), jnp.zeros(2))
    >>> jnp.exp(found.log_norm).round(4).item()  # 0.5³
    0.125
    """

    log_norm: Array
    log_radius: Array


def power_iteration(
    cell: Cell, theta_h: PyTree, xs: PyTree, h_0: PyTree, *, iterations: int = 100, key: Array | None = None
) -> PowerIteration:
    """‖c_t‖₂ and the spectral radius of c_t for t = 1 … T, without a matrix.

    The norm approaches from below, as (σ_2/σ_1)^(4·iterations). The radius is the growth of cᵏv, averaged over the
    second half. The average's smooth weight cancels the beat of a complex pair. The radius approaches as
    (|μ_2|/|μ_1|)^(iterations/2). It is slow where many eigenvalues share the largest modulus and c is far from normal.
    Costs 2·iterations pushforwards of f, and half as many pullbacks, all T at once. Each pushforward has two tangents;
    the second tells what overflow has lost.

    Args:
        cell: f, any.
        theta_h: its parameters.
        xs: ``[T, *batch, d]``.
        h_0: ``[*batch, n]``.
        iterations: of both.
        key: of the first vectors; a fixed draw by default.

    Returns:
        A `PowerIteration`.

    Raises:
        TypeError, ValueError: as `jaxbptt.unroll` does, and for iterations that are no integer of at least 2.

    Source: Golub and Van Loan (2013), Matrix computations, section 7.3; the weight, Das et al. (2017), Quantitative
    quasiperiodicity.

    >>> from jaxbptt import cells
    >>> theta_h = cells.LinearParams(W_x=jnp.ones((2, 1)), W_h=jnp.array([[0.0, -0.5], [2.0, 0.0]]))
    >>> found = power_iteration(cells.linear(), theta_h, jnp.ones((1, 1)), jnp.zeros(2))
    >>> found.norms.round(4).tolist(), found.radii.round(4).tolist()
    ([2.0], [1.0])
    """
    arguments.count("iterations", iterations, 2)
    h_0, batch, N, dtype = _members.begin(cell, theta_h, xs, h_0)
    hs_tm1, hs = trajectory(cell, theta_h, xs, h_0)
    v_0 = _members.directions(key, batch, N, 1, dtype)[..., 0]

    def one(x_t, h_tm1, h_t, v):
        def push(v):
            v, length = _members.unit(_push(cell, theta_h, x_t, h_tm1, v))
            return v, jnp.log(length)

        def pull(v):
            return _members.unit(_members.pull(cell, theta_h, x_t, h_tm1, h_t, v))[0]

        return _estimate(push, pull, v, iterations)

    log_norms, log_radii = jax.vmap(lambda *step: _axes.over_members(one, batch, *step, v_0))(xs, hs_tm1, hs)
    return PowerIteration(jnp.exp(log_norms), jnp.exp(log_radii))


def product_power_iteration(
    cell: Cell, theta_h: PyTree, xs: PyTree, h_0: PyTree, *, iterations: int = 20, key: Array | None = None
) -> ProductPowerIteration:
    """``log ‖c_T … c_1‖₂`` and the logarithm of the product's spectral radius, without a matrix and at any horizon.

    One application is a sweep over the sequence with the length taken out at each step. Over a long horizon the
    singular values are far apart, so few iterations do; see `power_iteration` for the rates.

    Args:
        cell: f, any.
        theta_h: its parameters.
        xs: ``[T, *batch, d]``.
        h_0: ``[*batch, n]``.
        iterations: each of two sweeps forward and one back.
        key: of the first vectors; a fixed draw by default.

    Returns:
        A `ProductPowerIteration`.

    Raises:
        TypeError, ValueError: as `power_iteration` does.

    >>> from jaxbptt import cells
    >>> theta_h = cells.LinearParams(W_x=jnp.ones((2, 1)), W_h=0.5 * jnp.eye(2))
    >>> found = product_power_iteration(cells.linear(), theta_h, jnp.ones((1000, 1)), jnp.zeros(2))
    >>> round(float(found.log_norm / 1000), 5)  # log 0.5; 0.5¹⁰⁰⁰ is 0 in float32
    -0.69315
    """
    arguments.count("iterations", iterations, 2)
    h_0, batch, N, dtype = _members.begin(cell, theta_h, xs, h_0)
    steps = (xs, *trajectory(cell, theta_h, xs, h_0))
    v_0 = _members.directions(key, batch, N, 1, dtype)[..., 0]

    def over(function, v, reverse):  # each step on each member, its length taken out
        def step(v, inputs):
            v, lengths = _axes.over_members(lambda *one: _members.unit(function(*one)), batch, *inputs, v)
            return v, jnp.log(lengths)

        v, logs = lax.scan(step, v, steps, reverse=reverse)
        return v, jnp.sum(logs, axis=0)

    def push(v):
        return over(lambda x_t, h_tm1, h_t, v: _push(cell, theta_h, x_t, h_tm1, v), v, False)

    def pull(v):
        return over(functools.partial(_members.pull, cell, theta_h), v, True)[0]

    return ProductPowerIteration(*_estimate(push, pull, v_0, iterations))


def _push(cell, theta_h, x_t, h_tm1, v):
    return _members.push(cell, theta_h, x_t, h_tm1, v[:, None])[:, 0]


def _estimate(push, pull, v, iterations):
    """(log σ_1, log ρ) from ``push: v -> (unit vector along c v, log ‖c v‖)`` and ``pull: v -> unit vector``."""
    right = lax.fori_loop(0, iterations, lambda _, right: pull(push(right)[0]), v)
    log_norm = push(right)[1]
    _, logs = lax.scan(lambda v, _: push(v), v, None, length=iterations)
    logs = logs[iterations // 2 :]
    place = (jnp.arange(len(logs), dtype=logs.dtype) + 0.5) / len(logs)
    weights = jnp.exp(-1 / (place * (1 - place)))
    weights = jnp.reshape(weights / jnp.sum(weights), (-1,) + (1,) * (logs.ndim - 1))
    terms = jnp.where(weights > 0, weights * logs, jnp.zeros_like(logs))  # log 0 counts where its weight does
    return log_norm, jnp.sum(terms, axis=0)
