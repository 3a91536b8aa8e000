"""The loop over time, with several steps to an iteration where starting one takes longer than computing it."""

import jax
from jax import lax

# Of an accelerator. Measured on an H200, one against 8 of them: LSTM, B = 64, T = 256, n = 256, 6.0 and 4.2 ms; n = 16
# and T = 4096, 64 and 27 ms. 16 or 32 are no faster than 8. What it costs is compilation: of 8, some three times that
# of one.
STEPS_AT_ONCE = 8
_FEWEST = 4  # with fewer a loop is so much slower that eight and a rest are taken, and the copy with them
_COPIED = 64  # steps; of fewer the copy is small


def on_cpu():
    """Whether programs run on a CPU by default: here alone the backend is asked for."""
    return jax.default_backend() == "cpu"


def steps_at_once():
    """How many steps an iteration has, at most."""
    return 1 if on_cpu() else STEPS_AT_ONCE


def over_time(step, carry, xs, *, length=None, reverse=False):
    """``lax.scan``, with `steps_at_once` steps written out one after the other: the same up to rounding.

    Where T is no multiple of it there are as many as divide T, or a rest of up to 7 steps: what the loop made is then
    copied once, to have that of the rest beside it. Where T is a symbol, in a program exported for any number of steps,
    an iteration has one.
    """
    body = step
    if steps_at_once() > 1 and any(map(_may_be_a_vector, jax.tree.leaves(carry))):

        def body(carry, inputs):
            carry, made = step(carry, inputs)
            return apart(carry), made

    T = jax.tree.leaves(xs)[0].shape[0] if length is None else length
    return lax.scan(body, carry, xs, length=length, reverse=reverse, unroll=_unroll(T))


def apart(state):
    """The end of one step and the beginning of the next, with a barrier between them for the compiler.

    Without it XLA takes a sum over the state that is no product of matrices, such as that of a matrix and a vector,
    into the program of the next step, which computes it once for each number that reads it: over eight steps n⁸ times.
    """
    if steps_at_once() == 1:
        return state
    # Leaf by leaf: JAX can't transpose one barrier for what is linear and what is a constant.
    return jax.tree.map(lambda leaf: lax.optimization_barrier(leaf) if isinstance(leaf, jax.Array) else leaf, state)


def _unroll(T):
    most = steps_at_once()
    if most == 1 or not isinstance(T, int):
        return 1
    if T < _COPIED:
        return most
    return next((k for k in range(most, _FEWEST - 1, -1) if T % k == 0), most)


def _may_be_a_vector(leaf):
    """[n] or [1, n]: on one of the devices that a batch may be split over, or with a symbol for B that may become 1."""
    sizes = leaf.shape[:-1]
    return leaf.ndim > 0 and all(not isinstance(size, int) or size <= jax.device_count() for size in sizes)
