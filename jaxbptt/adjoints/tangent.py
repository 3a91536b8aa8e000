"""The recursion with forward mode kept: the rule is a pushforward, and JAX transposes it for reverse mode.

1. Differentiating h_t = f(x_t, h_{t-1}; θ_h) in a direction (θ_dot, x_dot):
h_dot_t = c_t h_dot_{t-1} + e_t,      e_t = b_t θ_dot + (∂f/∂x_t) x_dot_t.
2. The e's need no scan: they are evaluated for a block of steps at once.
3. No derivation is new: c_t is the transpose of the cell's own δ ↦ c_tᵀ δ, and the e's the transpose of
δ's ↦ (Σ b_tᵀ δ_t, (∂f/∂x_t)ᵀ δ_t), so ``jax.linear_transpose`` makes them of the hand-written pullback.
4. Reverse mode transposes once more, which gives back the pullback: a scan for delta without a weight in its carry,
and one product over the block for each weight.
"""

from collections.abc import Callable
from typing import Any

import jax

from jaxbptt import _cotangents as cotangents
from jaxbptt._errors import arguments
from jaxbptt._factory import factory
from jaxbptt._loop import over_time
from jaxbptt.adjoints import _gates
from jaxbptt.adjoints._blocks import choose, handed_on, read_in_a_loop, scan_blocks, states, states_and_gates
from jaxbptt.cells._from_split import split_of
from jaxbptt.types import Adjoint, Cell


@factory
def _rule(cell: Cell, block: int | None) -> Callable:
    split = split_of(cell)

    @jax.custom_jvp
    def steps(theta_h, xs, h_0):
        h_T, hs, _ = states(split, theta_h, xs, h_0)
        return h_T, hs

    @steps.defjvp
    def pushforward(primals, dots):
        theta_h, xs, h_0 = primals
        theta_dot, xs_dot, h_0_dot = (cotangents.from_jax(dot) for dot in dots)
        h_T, hs_tm1, hs, gates = states_and_gates(split, theta_h, xs, h_0)
        deltas = cotangents.differentiable(hs)
        weights = read_in_a_loop(split, theta_h)

        def b_transposed(deltas):  # δ's ↦ Σ b_tᵀ δ_t, (∂f/∂x_t)ᵀ δ_t
            pull = jax.vmap(lambda *step: split.step_vjp(theta_h, *step)[0])
            z_bars = pull(gates, hs_tm1, hs, deltas)
            return tuple(rule(theta_h, xs, hs_tm1, gates, z_bars) for rule in (split.param_vjp, split.input_vjp))

        (es,) = jax.linear_transpose(b_transposed, deltas)((theta_dot, xs_dot))

        def step(h_dot_tm1, inputs):
            e_t, gates_t, h_tm1, h_t = inputs

            def c_transposed(delta):
                return split.step_vjp(weights(), gates_t, h_tm1, h_t, delta)[1]

            (c_h_dot,) = jax.linear_transpose(c_transposed, cotangents.differentiable(h_t))(h_dot_tm1)
            h_dot_t = cotangents.add(c_h_dot, e_t)
            return h_dot_t, h_dot_t

        h_T_dot, hs_dot = over_time(step, h_0_dot, (es, gates, hs_tm1, hs))
        return (h_T, hs), (cotangents.to_jax(h_T_dot, h_T), cotangents.to_jax(hs_dot, hs))

    def recursion(theta_h, xs, h_0):
        def block_of_steps(h, xs, _, span):
            h_end, hs = steps(theta_h, xs, h)
            return handed_on(h_end, hs, span), hs, None

        K = block or choose(split, theta_h, xs, h_0, _gates.layout(split, theta_h, xs, h_0))
        h_T, hs, _ = scan_blocks(block_of_steps, h_0, xs, K)
        return h_T, jax.vmap(cell.output)(hs)

    return recursion


@factory
def tangent(*, block: int | None = None) -> Adjoint:
    """The recursion with a rule for its tangents, ``h_dot_t = c_t h_dot_{t-1} + e_t``: every mode of JAX goes through.

    ``jax.jvp``, ``jax.linearize``, ``jax.grad``, Hessian-vector products in either order, ``jax.vmap``. Exact. In
    reverse mode it is the transpose of the rule, so the weight gradients leave the scan as in `full`; JAX keeps what
    the transpose needs, which is more than `full` does. Memory grows with T.

    jaxlib 0.10 compiles one such reverse pass wrongly on a CPU with 512-bit vectors: GRU and LSTM in float64 with
    B = 4 and n = 5, among 60 shapes tried, have gradients that are off by tenths; forward mode is right, and so are
    all other adjoints. jaxlib 0.11.2 and 0.12 are right, and 0.10 is with ``--xla_cpu_use_fusion_emitters=false``
    in ``XLA_FLAGS``. For a gradient alone take `full`.

    Args:
        block: how many steps are taken together outside the scan, at most; ``None`` chooses, as `full` does.

    Returns:
        An adjoint, ``(cell, theta_h, xs, h_0) -> (h_T, hs)``. The same object for equal arguments.

    Raises:
        TypeError, ValueError: for a block that is no positive integer.

    >>> import jax.numpy as jnp, jaxbptt as jb
    >>> theta_h = jb.cells.LinearParams(W_x=jnp.eye(1), W_h=0.5 * jnp.eye(1))
    >>> h_T = lambda h_0: jb.unroll(jb.cells.linear(), theta_h, jnp.ones((3, 1)), h_0, adjoint=tangent())[0][0]
    >>> jax.jvp(h_T, (jnp.zeros(1),), (jnp.ones(1),))[1].item()  # 0.5³
    0.125
    """
    if block is not None:
        arguments.count("block", block)

    def adjoint(cell, theta_h, xs, h_0):
        return _rule(cell, block)(theta_h, xs, h_0)

    marked: Any = adjoint
    marked.keeps_forward_mode = True
    return marked
