"""The recursion with forward mode kept: the rule is a pushforward, and JAX transposes it for reverse mode.

1. Differentiating h_t = f(x_t, h_{t-1}; θ_h) in a direction (θ_dot, x_dot):
h_dot_t = c_t h_dot_{t-1} + e_t,      e_t = b_t θ_dot + (∂f/∂x_t) x_dot_t.
2. The e's need no scan: they are evaluated for a block of steps at once.
3. No derivation is new. c_t is the transpose of the cell's own δ ↦ c_tᵀ δ. The e's are the transpose of
δ's ↦ (Σ b_tᵀ δ_t, (∂f/∂x_t)ᵀ δ_t). ``jax.linear_transpose`` makes both from the hand-written pullback.
4. Reverse mode transposes once more and has the pullback again. Its scan for delta carries no weight. Each weight has
one product over the block.
"""

import dataclasses
import functools
from typing import ClassVar, NamedTuple

import jax

from jaxbptt import _axes, _masks
from jaxbptt._errors import arguments
from jaxbptt._factory import factory
from jaxbptt._time import blocks, sweeps
from jaxbptt._time.loop import hold, over_time, read
from jaxbptt._trees import cotangents
from jaxbptt.adjoints import _errors
from jaxbptt.cells._from_split import split_of, take_step
from jaxbptt.types import Adjoint


class _How(NamedTuple):
    """Steps per block."""

    block: int


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def _block(cell, theta_h, xs, h_0):
    """h_K and h_1 … h_K."""
    split = split_of(cell)
    h_K, hs, _ = sweeps.forward(split, hold(split, theta_h, h_0), xs, h_0, keep=False)
    return h_K, hs


@_block.defjvp
def _pushforward(cell, primals, dots):
    theta_h, xs, h_0 = primals
    theta_dot, xs_dot, h_0_dot = (cotangents.from_jax(dot) for dot in dots)
    split = split_of(cell)
    h_K, hs, residuals = sweeps.forward(split, hold(split, theta_h, h_0), xs, h_0)
    steps = sweeps.Steps(xs, sweeps.shifted(h_0, hs), hs, residuals)
    deltas = cotangents.differentiable(hs)
    b_transposed = functools.partial(_b_transposed, split, theta_h, steps)
    (es,) = jax.linear_transpose(b_transposed, deltas)((theta_dot, xs_dot))
    weights = hold(split, theta_h)

    def step(h_dot_tm1, inputs):
        e_t, steps_t = inputs
        c_transposed = functools.partial(_c_transposed, split, read(split, weights), steps_t)
        (c_h_dot,) = jax.linear_transpose(c_transposed, cotangents.differentiable(steps_t.hs))(h_dot_tm1)
        h_dot_t = cotangents.add(c_h_dot, e_t)
        return h_dot_t, h_dot_t

    h_K_dot, hs_dot = over_time(step, h_0_dot, (es, steps))
    return (h_K, hs), (cotangents.to_jax(h_K_dot, h_K), cotangents.to_jax(hs_dot, hs))


def _b_transposed(split, theta_h, steps, deltas):
    """δ's ↦ Σ b_tᵀ δ_t, (∂f/∂x_t)ᵀ δ_t."""
    z_bars = jax.vmap(lambda step, delta: sweeps.step_vjp(split, theta_h, step, delta)[0])(steps, deltas)
    return split.param_vjp(theta_h, *steps, z_bars), split.input_vjp(theta_h, *steps, z_bars)


def _c_transposed(split, theta_h, step, delta):
    return sweeps.step_vjp(split, theta_h, step, delta)[1]


def _recursion(cell, how, theta_h, xs, h_0):
    def block(h, xs, _):
        h_K, hs = _block(cell, theta_h, xs, h)
        return h_K, hs, None

    h_T, hs, _ = blocks.scan(block, h_0, xs, how.block)
    return h_T, jax.vmap(cell.output)(hs)


@dataclasses.dataclass(frozen=True)
class Tangent:
    """The adjoint `tangent`: how many steps a block has."""

    block: int | None
    keeps_forward_mode: ClassVar[bool] = True

    def __call__(self, cell, theta_h, xs, h_0):
        """(h_T, hs), with this rule for their tangents."""
        T = _errors.steps_in_numbers(jax.tree.leaves(xs)[0].shape[0])
        step = jax.eval_shape(functools.partial(take_step, split_of(cell)), theta_h, _axes.one_step(xs), h_0)
        most = self.block or blocks.choose(step, theta_h, T)
        how = _How(blocks.even(T, most))
        if T % how.block:
            return _masks.in_blocks(_recursion, cell, how, theta_h, xs, h_0)
        return _recursion(cell, how, theta_h, xs, h_0)


@factory
def tangent(*, block: int | None = None) -> Adjoint:
    """The recursion with a rule for its tangents, ``h_dot_t = c_t h_dot_{t-1} + e_t``: every mode of JAX goes through.

    ``jax.jvp``, ``jax.linearize``, ``jax.grad``, Hessian-vector products in either order, ``jax.vmap``. Exact. Reverse
    mode is the transpose of the rule: weight gradients leave the scan, as in `full`. JAX keeps what the transpose
    needs, more than `full` keeps. Memory grows with T. For a gradient alone take `full`.

    Args:
        block: the most steps taken together outside the scan; ``None`` chooses, as `full` does.

    Returns:
        An adjoint, ``(cell, theta_h, xs, h_0) -> (h_T, hs)``. The same object for equal arguments.

    Raises:
        TypeError, ValueError: for a block that is no positive integer.

    Notes:
        jaxlib 0.10 compiles one such reverse pass wrongly, on a CPU with 512-bit vectors. Among 60 shapes tried, GRU
        and LSTM in float64 with B = 4 and n = 5 have gradients off by tenths. Forward mode and all other adjoints are
        right. So are jaxlib 0.11.2 and 0.12, and 0.10 with ``--xla_cpu_use_fusion_emitters=false`` in ``XLA_FLAGS``.

    >>> import jax.numpy as jnp, jaxbptt as jb
    >>> theta_h = jb.cells.LinearParams(W_x=jnp.eye(1), W_h=0.5 * jnp.eye(1))
    >>> h_T = lambda h_0: jb.unroll(jb.cells.linear(), theta_h, jnp.ones((3, 1)), h_0, adjoint=tangent())[0][0]
    >>> jax.jvp(h_T, (jnp.zeros(1),), (jnp.ones(1),))[1].item()  # 0.5³
    0.125
    """
    if block is not None:
        arguments.count("block", block)
    return Tangent(block)
