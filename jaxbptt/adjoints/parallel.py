"""The adjoint as an associative scan: depth log T instead of T.

    delta_t = h_bar_t + delta_{t+1} C_{t+1},      C_{t+1} the matrix c_{t+1}, rows for vectors

is a recurrence of affine maps. `jaxbptt._time.affine` evaluates it in 2 log₂ T rounds of n×n products. Each c is
written out as a matrix, by N pullbacks: worth it for small n and long T on an accelerator.
"""

import dataclasses
import functools
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from jaxbptt import _axes
from jaxbptt._factory import factory
from jaxbptt._time import affine, sweeps
from jaxbptt._time.loop import hold
from jaxbptt._trees import cotangents, vectors
from jaxbptt.adjoints import _errors
from jaxbptt.cells._from_split import split_of
from jaxbptt.types import Adjoint


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _recursion(cell, theta_h, xs, h_0):
    return _forward(cell, theta_h, xs, h_0)[0]


def _forward(cell, theta_h, xs, h_0):
    split = split_of(cell)
    h_T, hs, residuals = sweeps.forward(split, hold(split, theta_h, h_0), xs, h_0)
    return (h_T, jax.vmap(cell.output)(hs)), (theta_h, h_0, sweeps.Steps(xs, None, hs, residuals))


def _backward(cell, kept, bars):
    theta_h, h_0, steps = kept
    _errors.steps_in_numbers(jax.tree.leaves(steps.xs)[0].shape[0])
    split, steps = split_of(cell), steps._replace(hs_tm1=sweeps.shifted(h_0, steps.hs))
    h_T_bar, output_bars = cotangents.from_jax(bars)
    h_bars = jax.vmap(lambda h_t, bar: cotangents.pullback(cell.output, h_t)[1](bar)[0])(steps.hs, output_bars)
    h_bars = jax.tree.map(lambda h_bar, last: h_bar.at[-1].add(last), h_bars, h_T_bar)
    batch = _axes.members_shape(cell, theta_h, h_0)

    v = jax.vmap(functools.partial(_vector, batch))(h_bars)
    units, _ = cotangents.alike(jnp.eye(v.shape[-1], dtype=v.dtype), v)
    cs = jax.vmap(functools.partial(_matrix, split, theta_h, batch, units))(steps)
    following = jnp.concatenate([cs[1:], jnp.zeros_like(cs[:1])])  # C_{t+1}; beyond T there is nothing
    deltas = jax.vmap(functools.partial(_tree, batch))(affine.scan(v, following, reverse=True), steps.hs)

    z_bars, c_deltas = jax.vmap(functools.partial(sweeps.step_vjp, split, theta_h))(steps, deltas)
    theta_bar, xs_bar = (rule(theta_h, *steps, z_bars) for rule in (split.param_vjp, split.input_vjp))
    return theta_bar, xs_bar, jax.tree.map(lambda leaf: leaf[0], c_deltas)


_recursion.defvjp(_forward, _backward)


def _vector(batch, delta):
    """``[*batch, N]``. Every leaf of a cotangent has the batch axes."""
    return _axes.over_members(vectors.gradient_vector, batch, delta)


def _tree(batch, vector, h_t):
    """The inverse of `_vector`."""

    def one(vector, h_t):
        return vectors.gradient(vector, h_t)

    return _axes.over_members(one, batch, vector, cotangents.differentiable(h_t))


def _matrix(split, theta_h, batch, units, step):
    """c_t for all members at once: its rows are the pullbacks of the unit vectors."""

    def row(unit):
        delta = _tree(batch, jnp.broadcast_to(unit, (*batch, unit.size)), step.hs)
        return _vector(batch, sweeps.step_vjp(split, theta_h, step, delta)[1])

    return jax.vmap(row, out_axes=-2)(units)


@dataclasses.dataclass(frozen=True)
class Parallel:
    """The adjoint `parallel`."""

    keeps_forward_mode: ClassVar[bool] = False

    def __call__(self, cell, theta_h, xs, h_0) -> Any:
        """(h_T, hs), with this rule for their gradient."""
        return _recursion(cell, theta_h, xs, h_0)


@factory
def parallel() -> Adjoint:
    """Backpropagation through time with delta as an associative scan: 2 log₂ T rounds instead of T steps.

    Exact, for every cell. The forward recursion stays sequential. Time: O(T·N³) flops for each member of the batch, in
    O(log T) dependent rounds. Memory: O(T·N²), for the matrices c_t. Meant for small n and long T on an accelerator (an
    H200, Elman, B = 1, n = 8, T = 16,384: 36 ms, `full` 59). On a CPU `full` is faster. Reverse mode only.

    Returns:
        An adjoint, ``(cell, theta_h, xs, h_0) -> (h_T, hs)``. The same object at each call.

    Raises:
        TypeError: from JAX, for ``jax.jvp`` and the result of ``jax.linearize``. Take `tangent` or `autodiff` there.

    Notes:
        Members of the batch must not influence one another. N is the size of one member's state. It is that of the
        whole batch where members share a number of the state, or the cell has no `initial_state`.

        Products of many c_t may overflow where no delta does. Over steps that nothing reads, such as padding, this
        changes nothing. Elsewhere the gradient may be NaN where `full` gives numbers: for a loss that reads a part of
        the state.

    Source: Blelloch (1990), Prefix sums and their applications, section 1.4, for the scan of a linear recurrence.

    >>> import jaxbptt as jb
    >>> theta_h = jb.cells.LinearParams(W_x=jnp.eye(1), W_h=0.5 * jnp.eye(1))
    >>> h_T = lambda h_0: jb.unroll(jb.cells.linear(), theta_h, jnp.ones((3, 1)), h_0, adjoint=parallel())[0][0]
    >>> jax.grad(h_T)(jnp.zeros(1)).tolist()
    [0.125]
    """
    return Parallel()
