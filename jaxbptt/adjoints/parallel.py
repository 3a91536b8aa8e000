"""The adjoint as an associative scan: depth log T instead of T.

 1. delta_t = v_t + delta_{t+1} C_{t+1}, with rows for vectors, v_t = h_bar_t, and C_{t+1} the matrix c_{t+1}.
 2. Two such maps, one after the other, are a map of the same form:
        (v_t, C_{t+1}) after (v_{t+1}, C_{t+2}):   delta_t = (v_t + v_{t+1} C_{t+1}) + delta_{t+2} C_{t+2} C_{t+1}.
 3. So all delta_t are the suffix products of that associative operation, in 2 log₂ T rounds of products of n×n
    matrices, each round in parallel.

The c's are written out as matrices, N pullbacks each: worth it for small n and long T on an accelerator.
"""

from collections.abc import Callable
from typing import cast

import jax
import jax.numpy as jnp
from jax import lax

from jaxbptt import _axes, _real, _varying
from jaxbptt import _cotangents as cotangents
from jaxbptt._factory import factory
from jaxbptt.adjoints import _errors
from jaxbptt.adjoints._blocks import shifted, states, states_and_gates
from jaxbptt.cells._from_split import split_of
from jaxbptt.types import Adjoint, Cell


@factory
def _rule(cell: Cell) -> Callable:
    split = split_of(cell)

    def outputs(h_T, hs):
        return h_T, jax.vmap(cell.output)(hs)

    @jax.custom_vjp
    def recursion(theta_h, xs, h_0):
        h_T, hs, _ = states(split, theta_h, xs, h_0)
        return outputs(h_T, hs)

    def forward(theta_h, xs, h_0):
        h_T, _, hs, gates = states_and_gates(split, theta_h, xs, h_0)
        return outputs(h_T, hs), (theta_h, xs, h_0, hs, gates)

    def backward(residuals, bars):
        theta_h, xs, h_0, hs, gates = residuals
        _errors.steps_in_numbers(jax.tree.leaves(xs)[0].shape[0])
        h_T_bar, output_bars = cotangents.from_jax(bars)
        hs_tm1 = shifted(h_0, hs)
        h_bars = jax.vmap(lambda h_t, bar: cotangents.pullback(cell.output, h_t)[1](bar)[0])(hs, output_bars)
        h_bars = jax.tree.map(lambda h_bar, last: h_bar.at[-1].add(last), h_bars, h_T_bar)
        batch = _axes.members_shape(cell, theta_h, h_0)

        def vector(delta):  # [*batch, N]; a cotangent has the batch axes in all its leaves
            return _axes.over_members(_real.gradient_vector, batch, delta)

        def tree(vector, h_t):
            def one(vector, h_t):
                return _real.gradient(vector, _real.flatten(h_t)[1])

            return _axes.over_members(one, batch, vector, cotangents.differentiable(h_t))

        v = jax.vmap(vector)(h_bars)
        units, _ = _varying.alike(jnp.eye(v.shape[-1], dtype=v.dtype), v)

        def matrix(gates_t, h_tm1, h_t):  # c_t: its rows are the pullbacks of the unit vectors, of all members at once
            def row(unit):
                delta = tree(jnp.broadcast_to(unit, (*batch, unit.size)), h_t)
                return vector(split.step_vjp(theta_h, gates_t, h_tm1, h_t, delta)[1])

            return jax.vmap(row, out_axes=-2)(units)

        cs = jax.vmap(matrix)(gates, hs_tm1, hs)
        following = jnp.concatenate([cs[1:], jnp.zeros_like(cs[:1])])  # C_{t+1}; beyond T there is nothing

        def compose(later, earlier):
            (v_later, C_later), (v_earlier, C_earlier) = later, earlier
            highest = lax.Precision.HIGHEST  # errors of long products compound
            handed_on = jnp.einsum("...i,...ij->...j", v_later, C_earlier, precision=highest)
            # Over steps that nothing reads C may overflow where no delta does: 0 · inf would be NaN.
            unread = jnp.all(v_later == 0, axis=-1, keepdims=True) & ~jnp.isfinite(handed_on)
            v = v_earlier + jnp.where(unread, jnp.zeros_like(handed_on), handed_on)
            return v, jnp.matmul(C_later, C_earlier, precision=highest)

        deltas, _ = lax.associative_scan(compose, (v, following), reverse=True)

        deltas = jax.vmap(tree)(deltas, hs)
        z_bars, c_deltas = jax.vmap(lambda *step: split.step_vjp(theta_h, *step))(gates, hs_tm1, hs, deltas)
        theta_bar = split.param_vjp(theta_h, xs, hs_tm1, gates, z_bars)
        xs_bar = split.input_vjp(theta_h, xs, hs_tm1, gates, z_bars)
        return theta_bar, xs_bar, jax.tree.map(lambda leaf: leaf[0], c_deltas)

    recursion.defvjp(forward, backward)
    return recursion


@factory
def parallel() -> Adjoint:
    """Backpropagation through time with delta as an associative scan: 2 log₂ T rounds instead of T steps.

    Exact, for every cell. The forward recursion stays sequential. Time O(T·N³) flops for each member of the batch, in
    O(log T) dependent rounds; memory O(T·N²), for the matrices c_t. Meant for small n and long T on an accelerator (an
    H200, Elman, B = 1, n = 8, T = 16,384: 36 ms, `full` 59); on a CPU `full` is faster. Reverse mode only. Members of
    the batch must not influence one another; where they share a number of the state, or the cell has no
    `initial_state`, N is that of the whole batch.

    Products of many c_t may overflow where no delta does. Over steps that nothing reads, such as padding, that changes
    nothing; elsewhere (a loss that reads a part of the state) the gradient may be NaN where that of `full` is not.

    Returns:
        An adjoint, ``(cell, theta_h, xs, h_0) -> (h_T, hs)``. The same object at each call.

    Raises:
        TypeError: from JAX, for ``jax.jvp`` and for what ``jax.linearize`` returns; take `tangent` or `autodiff` there.

    Source: Blelloch (1990), Prefix sums and their applications, section 1.4, for the scan of a linear recurrence.

    >>> import jaxbptt as jb
    >>> theta_h = jb.cells.LinearParams(W_x=jnp.eye(1), W_h=0.5 * jnp.eye(1))
    >>> h_T = lambda h_0: jb.unroll(jb.cells.linear(), theta_h, jnp.ones((3, 1)), h_0, adjoint=parallel())[0][0]
    >>> jax.grad(h_T)(jnp.zeros(1)).tolist()
    [0.125]
    """

    def adjoint(cell, theta_h, xs, h_0):
        return _rule(cell)(theta_h, xs, h_0)

    return cast(Adjoint, adjoint)
