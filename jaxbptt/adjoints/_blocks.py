"""Time in blocks: what is parallel over time is done for a block at a time, what is sequential inside it.

On a CPU, hoisting a product over the whole of T writes an array far larger than the cache, and every fresh page of it
is a fault; inside blocks of a few megabytes the same hoisting wins. On an accelerator one block is best, where memory
is not what counts (`choose`).
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxbptt import _axes
from jaxbptt import _cotangents as cotangents
from jaxbptt._loop import over_time
from jaxbptt.adjoints import _errors, _gates
from jaxbptt.types import Array

# Of the largest array over time. Measured on a CPU: up to some 8 MiB one block is best (no copies between a block and
# the whole), above it blocks of 1 to 3 MiB, or half the size of a large θ_h, as each block reads and writes all of
# ∂F/∂θ_h.
_CPU_WHOLE_BYTES = 8 * 2**20
_CPU_BLOCK_BYTES = 2 * 2**20
_BOUNDED_BYTES = 64 * 2**20  # on an accelerator: a transfer of it runs at full rate, and it is small beside the memory


def operands(split, theta_h):
    """θ_h as the products read it, made once: what takes it from here has nothing to compute of it in a loop.

    Its transpose sums the cotangents of all steps in the dtype of the operands; that of `read_in_a_loop` does not.
    """
    # The barrier, or a compiler may take it back into the loop.
    return theta_h if split.operands is None else lax.optimization_barrier(split.operands(theta_h))


def read_in_a_loop(split, theta_h, *, columns=False):
    """``() -> `` the same, to be called in each step: its derivative is that of operands made in each step.

    With bfloat16 operands the cotangents of all steps, in a second derivative, are then summed in float32. With
    `columns` the loop is handed each tall W [k, n] as Wᵀ, written once before it (`sequential_step`).
    """
    if split.operands is None and not columns:
        return lambda: theta_h
    made = theta_h if split.operands is None else lax.stop_gradient(split.operands(theta_h))
    leaves, structure = jax.tree.flatten(made)
    tall = [columns and _is_tall(leaf) for leaf in leaves]
    # The barrier, or a compiler may take the computation back into the loop.
    held = lax.optimization_barrier(_transposed(leaves, tall))

    def read():
        made = structure.unflatten(_transposed(held, tall))
        return made if split.operands is None else _read(theta_h, made)

    return read


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


def states(split, theta_h, xs, h_0, keep=None):
    """h_T; h_1 … h_T; and what of the gates is computed. The products that don't read h_{t-1} leave the scan.

    `keep` is the `_gates.Layout` that says what is computed; without it none is kept.
    """
    step_of = sequential_step(split, theta_h, h_0)

    def step(h_tm1, u_t):
        h_t, gates_t = step_of(u_t, h_tm1)
        return h_t, (h_t, () if keep is None else _gates.computed(keep, gates_t))

    h_T, (hs, kept) = over_time(step, h_0, split.project(theta_h, xs))
    return h_T, hs, kept


def states_and_gates(split, theta_h, xs, h_0):
    """h_T; h_0 … h_{T-1}; h_1 … h_T; and all gates."""
    layout = _gates.layout(split, theta_h, xs, h_0)
    h_T, hs, kept = states(split, theta_h, xs, h_0, layout)
    hs_tm1 = shifted(h_0, hs)
    return h_T, hs_tm1, hs, _gates.together(layout, xs, hs_tm1, hs, kept)


def sequential_step(split, theta_h, h_0):
    """``split.step`` with θ_h as a loop over time reads it best: ``(u_t, h_tm1) -> (h_t, gates_t)``.

    W_h h of a batch is a product of h [B, n] with W_hᵀ [n, k]. The transpose, written once before the loop, is read
    along its rows; that of a W_h [k, n] would be gathered again in every step. Measured on a CPU: 5 to 20% of the time
    of a small batch, nothing of a large one. A vector alone is better off with the rows of W_h: many times.
    """
    is_batch = any(size != 1 for leaf in jax.tree.leaves(h_0) for size in leaf.shape[:-1])
    read = read_in_a_loop(split, theta_h, columns=is_batch)
    return lambda u_t, h_tm1: split.step(read(), u_t, h_tm1)


def _transposed(leaves, chosen):
    return [leaf.T if is_chosen else leaf for leaf, is_chosen in zip(leaves, chosen, strict=True)]


def _is_tall(leaf):
    """Whether it can be the W of W h with all gates in its rows. A wide one is multiplied from the other side."""
    return jnp.ndim(leaf) == 2 and leaf.shape[0] >= leaf.shape[1]


def shifted(h_0, hs):
    """h_0 … h_{T-1}."""
    return jax.tree.map(lambda h, later: jnp.concatenate([h[None], later[:-1]]), h_0, hs)


class Span(NamedTuple):
    """Which of its steps are a block's own, where blocks overlap; there is none where they don't.

    Attributes:
        first: its own steps begin here; those before are also in the block that is earlier in time, whose own they are.
        end: the block later in time begins after so many of its steps.
    """

    first: Array
    end: Array

    def own(self, K):
        """Which of the block's K steps are its own, ``[K]``."""
        return jnp.arange(K, dtype=jnp.int32) >= self.first


def even_blocks(T, most):
    """How many blocks of at most so many steps, and the fewest steps with which these are enough: U·K ≥ T."""
    number = -(-T // most)
    return number, -(-T // number)


def starts(T, number, K):
    """The step with which each block begins. Only the last one is not where the one before it ends."""
    return np.minimum(K * np.arange(number, dtype=np.int32), T - K)


def scan_blocks(body, carry, xs, block, *, each=None, reverse=False):
    """``body(carry, xs_of_a_block, each_of_a_block, span) -> (carry, ys_of_a_block, each_of_a_block)``, block by block.

    Blocks are of `block` steps at most and all of one length K. Where K doesn't divide T the last one begins at T - K,
    before the one earlier in time ends: `body` is in the program once, whatever T. What there is one of for each
    block, such as the states that it keeps for the way back, has its own axis of blocks.

    Returns:
        the carry, ys over time, and what there is one of for each block.
    """
    T = _errors.steps_in_numbers(jax.tree.leaves(xs)[0].shape[0])
    number, K = even_blocks(T, block)
    if number == 1:
        carry, ys, made = body(carry, xs, jax.tree.map(lambda leaf: leaf[0], each), None)
        return carry, ys, jax.tree.map(lambda leaf: leaf[None], made)
    overlap = number * K - T

    def one_block(carry, inputs):
        carry, ys, made = body(carry, *inputs)
        return carry, (ys, made)

    spans = None
    if overlap:
        begins = starts(T, number, K)
        first, end = K * np.arange(number, dtype=np.int32) - begins, np.diff(begins, append=T)
        spans = Span(jnp.asarray(first), jnp.asarray(end.astype(np.int32)))
    carry, (ys, made) = lax.scan(one_block, carry, (_cut(xs, number, K), each, spans), reverse=reverse)
    return carry, join(ys, T), made


def _cut(xs, number, K):
    """Time as blocks, ``[T, …]`` to ``[number, K, …]``."""

    def cut(leaf):
        T = leaf.shape[0]
        if number * K == T:
            return leaf.reshape(number, K, *leaf.shape[1:])
        return jax.vmap(lambda start: lax.dynamic_slice_in_dim(leaf, start, K))(starts(T, number, K))

    return jax.tree.map(cut, xs)


def join(blocks, T):
    """The inverse: ``[number, K, …]`` to ``[T, …]``, each step from the block whose own it is."""

    def one(leaf):
        number, K = leaf.shape[:2]
        whole = leaf.reshape(number * K, *leaf.shape[2:])
        if number * K == T:
            return whole
        steps = jnp.arange(T, dtype=jnp.int32)
        steps = jnp.where(steps < (number - 1) * K, steps, steps + number * K - T)
        # Not two slices in a concatenation, which the compiler of the CPU needs twice as long for.
        return whole.at[steps].get(mode="promise_in_bounds", indices_are_sorted=True, unique_indices=True)

    return jax.tree.map(one, blocks)


def handed_on(h_end, hs, span):
    """The state that the next block begins with."""
    if span is None:
        return h_end
    return jax.tree.map(lambda leaf: lax.dynamic_index_in_dim(leaf, span.end - 1, keepdims=False), hs)


def own_step(pull, own, delta_t, c_delta_tp1):
    """``(z_bar_t, c_delta_t) = pull(delta_t)`` where the step is a block's own; else nothing happens at it.

    As `pull` is linear, 0 in is 0 out, and Σ b_tᵀ delta_t leaves the step out. ``own=None`` says that all steps are.
    """
    if own is None:
        return pull(delta_t)
    z_bar_t, c_delta_t = pull(jax.tree.map(lambda leaf: jnp.where(own, leaf, jnp.zeros_like(leaf)), delta_t))
    return z_bar_t, jax.tree.map(lambda new, old: jnp.where(own, new, old), c_delta_t, c_delta_tp1)


def choose(split, theta_h, xs, h_0, layout, *, on_host=False, recomputed=False):
    """How many steps make a block, from the shapes and the backend. Prefers a divisor of T: no overlap, no copies.

    What is fetched from the host, or computed again, should be there for one block at a time: then all of T is one
    block only where it is small, on an accelerator as well. A size that is a symbol, in a program exported for any
    batch, counts as 1.
    """
    T = _errors.steps_in_numbers(jax.tree.leaves(xs)[0].shape[0])

    def one_step(theta_h, xs, h_0):
        u_t = jax.tree.map(lambda leaf: leaf[0], split.project(theta_h, xs))
        h_1, gates_t = split.step(theta_h, u_t, h_0)
        return theta_h, u_t, h_1, _gates.computed(layout, gates_t)

    theta_h, u_t, h_1, computed_t = jax.eval_shape(one_step, theta_h, _gates.one_step(xs), h_0)
    widest = max(1, _bytes(u_t), _bytes(h_1), _bytes(computed_t))
    bounded = on_host or (recomputed and _bytes(computed_t) > 0)
    if jax.default_backend() != "cpu":
        whole, block = (_BOUNDED_BYTES if bounded else math.inf), _BOUNDED_BYTES
    else:
        block = max(_CPU_BLOCK_BYTES, min(_bytes(theta_h) // 2, _CPU_WHOLE_BYTES))
        whole = block if bounded else _CPU_WHOLE_BYTES
    if T * widest <= whole:
        return T
    most = max(1, min(T, block // widest))
    divisor = max(k for k in range(1, most + 1) if T % k == 0)
    return divisor if 2 * divisor > most else most


def _bytes(tree):
    return sum(math.prod(_axes.numbers(leaf.shape)) * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))
