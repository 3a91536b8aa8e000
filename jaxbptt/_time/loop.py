"""The loop over time: how many steps to an iteration, and θ_h as a step reads it.

An iteration has several steps where starting one takes longer than computing it. Values that depend on θ_h alone are
computed once, before the loop.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from jaxbptt._trees import cotangents

# On an accelerator. Measured on an H200, one step an iteration against 8: LSTM, B = 64, T = 256, n = 256, 6.0 and
# 4.2 ms; n = 16 and T = 4096, 64 and 27 ms. 16 or 32 are no faster than 8. The price is compilation: 8 take some three
# times as long as one.
STEPS_AT_ONCE = 8
_FEWEST = 4  # with fewer the loop is so slow that eight and a rest are better, in spite of the copy
_COPIED = 64  # steps; with fewer the copy is small


def on_cpu():
    """Whether programs run on a CPU by default. Only this function asks for the backend."""
    return jax.default_backend() == "cpu"


def over_time(step, carry, xs, *, reverse=False):
    """``lax.scan``; on an accelerator with `STEPS_AT_ONCE` steps written out one after the other.

    Where T is no multiple, an iteration has as many steps as divide T. Failing that, a rest of up to 7 steps follows.
    The loop's results are then copied once, to join the rest's. Where T is a symbol, in a program exported for any
    number of steps, an iteration has one.
    """
    if on_cpu():
        return lax.scan(step, carry, xs, reverse=reverse)
    body = step
    if any(map(_may_be_a_vector, jax.tree.leaves(carry))):

        def body(carry, inputs):
            carry, made = step(carry, inputs)
            return barrier(carry), made

    return lax.scan(body, carry, xs, reverse=reverse, unroll=_at_once(jax.tree.leaves(xs)[0].shape[0]))


def barrier(state):
    """The state between two steps, behind a barrier for the compiler.

    Without it XLA moves sums over the state, such as a matrix times a vector, into the next step. Each number that
    reads a sum then computes it again: over eight steps n⁸ times. Products of matrices are not moved.
    """
    if on_cpu():
        return state
    # Leaf by leaf: JAX can't transpose one barrier over linear values and constants.
    return jax.tree.map(lambda leaf: lax.optimization_barrier(leaf) if isinstance(leaf, jax.Array) else leaf, state)


def _at_once(T):
    if not isinstance(T, int):
        return 1
    if T < _COPIED:
        return STEPS_AT_ONCE
    return next((k for k in range(STEPS_AT_ONCE, _FEWEST - 1, -1) if T % k == 0), STEPS_AT_ONCE)


def _may_be_a_vector(leaf):
    """[n] or [1, n] on one device: a batch may be split over all of them, and a symbol for B may become 1."""
    sizes = leaf.shape[:-1]
    return leaf.ndim > 0 and all(not isinstance(size, int) or size <= jax.device_count() for size in sizes)


class Weights(NamedTuple):
    """θ_h; the operands that a loop holds; and which of their leaves are held as the transpose."""

    theta_h: Any
    held: Any
    transposed: Any


def hold(split, theta_h, h_0=None):
    """θ_h for a loop whose steps `read` it. Its operands, such as bfloat16 weights, are made once.

    With h_0 it is for ``split.step``. For a batch, each tall W [k, n] is then held as Wᵀ, written once: W_h h is the
    product of h [B, n] with W_hᵀ [n, k]. The held Wᵀ is read along its rows. Without it, every step would gather Wᵀ
    again. Measured on a CPU: 5 to 20% of the time of a small batch, nothing of a large one. A single vector is many
    times better off with the rows of W_h. A wide W is multiplied from the other side.
    """
    made = theta_h if split.operands is None else lax.stop_gradient(split.operands(theta_h))
    is_batch = any(size != 1 for leaf in jax.tree.leaves(h_0) for size in leaf.shape[:-1])
    leaves, structure = jax.tree.flatten(made)
    tall = [is_batch and jnp.ndim(leaf) == 2 and leaf.shape[0] >= leaf.shape[1] for leaf in leaves]
    if split.operands is None and not any(tall):
        return Weights(theta_h, None, None)
    # Without the barrier a compiler may move the computation back into the loop.
    held = lax.optimization_barrier([leaf.T if is_tall else leaf for leaf, is_tall in zip(leaves, tall, strict=True)])
    return Weights(theta_h, structure.unflatten(held), structure.unflatten(tall))


def read(split, weights):
    """θ_h in a step. Its derivative is that of operands made in each step.

    In a second derivative the cotangents of all steps are then summed in float32, for bfloat16 operands too.
    """
    if weights.held is None:
        return weights.theta_h
    leaves, structure = jax.tree.flatten(weights.held)
    tall = jax.tree.leaves(weights.transposed)
    made = structure.unflatten([leaf.T if is_tall else leaf for leaf, is_tall in zip(leaves, tall, strict=True)])
    return made if split.operands is None else _read(weights.theta_h, made)


@jax.custom_jvp
def _read(theta_h, made):
    return made


@_read.defjvp
def _read_pushforward(primals, dots):
    (_, made), (theta_dot, _) = primals, dots
    made_dot = jax.tree.map(
        lambda dot, leaf: dot.astype(leaf.dtype) if cotangents.has_derivative(leaf) else dot, theta_dot, made
    )
    return made, made_dot


def operands(split, theta_h):
    """θ_h as the products read it, made once, before a loop.

    Its transpose sums the cotangents of all steps in the dtype of the operands. That of `read` does not.
    """
    return lax.optimization_barrier(split.operands(theta_h))  # else a compiler may move it into the loop
