"""The loop over time, with several steps to an iteration where starting one takes longer than computing it."""

import jax
from jax import lax

# Of an accelerator. Measured on an H200, one against 8 of them: LSTM, B = 64, T = 256, n = 256, 6.0 and 4.2 ms; n = 16
# and T = 4096, 64 and 27 ms. 16 or 32 are no faster than 8, and take twice as long to compile.
STEPS_AT_ONCE = 8


def steps_at_once():
    """How many steps an iteration has."""
    return 1 if jax.default_backend() == "cpu" else STEPS_AT_ONCE


def over_time(step, carry, xs, *, length=None, reverse=False):
    """``lax.scan``, with `steps_at_once` steps written out one after the other.

    The results are those of one at a time. The program has T mod `STEPS_AT_ONCE` more of them, whatever T; where T is
    a symbol, in a program exported for any number of steps, an iteration has one.
    """
    body = step
    if steps_at_once() > 1 and any(map(_is_vector, jax.tree.leaves(carry))):

        def body(carry, inputs):
            carry, made = step(carry, inputs)
            return apart(carry), made

    T = jax.tree.leaves(xs)[0].shape[0] if length is None else length
    unroll = steps_at_once() if isinstance(T, int) else 1
    return lax.scan(body, carry, xs, length=length, reverse=reverse, unroll=unroll)


def apart(state):
    """`state`, the end of one step and the beginning of the next, which a compiler is to keep apart.

    For a sum over the state that is no product of matrices, as that with a vector: XLA takes it into the program of the
    next step, and computes it there once for each number that reads it, of eight steps n⁸ times.
    """
    return state if steps_at_once() == 1 else lax.optimization_barrier(state)


def _is_vector(leaf):
    """[1, n], [n], or [B, 1], whose product with W is no product of matrices."""
    return leaf.ndim > 0 and (leaf.shape[-1] == 1 or all(size == 1 for size in leaf.shape[:-1]))
