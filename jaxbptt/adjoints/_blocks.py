"""Time in blocks: what is parallel over time is done for a block at a time, what is sequential inside it.

On a CPU, hoisting a product over the whole of T writes an array far larger than the cache, and every fresh page of it
is a fault; inside blocks of a few megabytes the same hoisting wins. On an accelerator one block is best.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

# Of the largest array over time. Measured on a CPU: up to some 8 MiB one block is best (no copies between a block and
# the whole), above it blocks of 1 to 3 MiB.
_CPU_WHOLE_BYTES = 8 * 2**20
_CPU_BLOCK_BYTES = 2 * 2**20
_HOST_BLOCK_BYTES = 64 * 2**20  # large enough for a transfer to run at full rate, small beside a device's memory


def states(split, theta_h, xs, h_0, *, keep_gates=True):
    """h_T; h_1 … h_T; and what the pullback wants kept. The part of f that doesn't read h_{t-1} leaves the scan."""
    step_of = sequential_step(split, theta_h, h_0)

    def step(h_tm1, u_t):
        h_t, gates_t = step_of(u_t, h_tm1)
        return h_t, (h_t, gates_t if keep_gates else None)

    h_T, (hs, gates) = lax.scan(step, h_0, split.project(theta_h, xs))
    return h_T, hs, gates


def sequential_step(split, theta_h, h_0):
    """``split.step`` with θ_h as a loop over time reads it best: ``(u_t, h_tm1) -> (h_t, gates_t)``.

    W_h h of a batch is a product of h [B, n] with W_hᵀ [n, k]. The transpose, written once before the loop, is read
    along its rows; that of a W_h [k, n] would be gathered again in every step. Measured on a CPU: 5 to 20% of the time
    of a small batch, nothing of a large one. A vector alone is better off with the rows of W_h: many times.
    """
    if not any(leaf.ndim > 1 and leaf.shape[-1] < leaf.size for leaf in jax.tree.leaves(h_0)):
        return lambda u_t, h_tm1: split.step(theta_h, u_t, h_tm1)
    leaves, structure = jax.tree.flatten(theta_h)
    tall = [_is_tall(leaf) for leaf in leaves]
    # The barrier, or a compiler may take the transposition back into the loop.
    columns = lax.optimization_barrier(_transposed(leaves, tall))
    return lambda u_t, h_tm1: split.step(structure.unflatten(_transposed(columns, tall)), u_t, h_tm1)


def _transposed(leaves, chosen):
    return [leaf.T if is_chosen else leaf for leaf, is_chosen in zip(leaves, chosen, strict=True)]


def _is_tall(leaf):
    """Whether it can be the W of W h with all gates in its rows. A wide one is multiplied from the other side."""
    return leaf.ndim == 2 and leaf.shape[0] >= leaf.shape[1]


def shifted(h_0, hs):
    """h_0 … h_{T-1}."""
    return jax.tree.map(lambda h, later: jnp.concatenate([h[None], later[:-1]]), h_0, hs)


def scan_blocks(body, carry, xs, block, *, each=None, reverse=False):
    """``body(carry, xs_of_a_block, each_of_a_block) -> (carry, ys_of_a_block, each_of_a_block)``, block by block.

    Blocks are of `block` steps, the rest is a shorter one at the end. With ``block >= T`` this is one call of `body`;
    otherwise `body` is in the program at most twice, whatever T. What there is one of for each block, such as the
    state it starts from, has its own axis of blocks.

    Returns:
        the carry, ys over time, and what there is one of for each block.
    """
    T = jax.tree.leaves(xs)[0].shape[0]
    number, rest = divmod(T, min(block, T))
    if rest:
        remainder = jax.tree.map(lambda leaf: leaf[T - rest :], xs)
        last = jax.tree.map(lambda leaf: leaf[-1], each)
        xs, each = jax.tree.map(lambda leaf: leaf[: T - rest], xs), jax.tree.map(lambda leaf: leaf[:-1], each)
    if rest and reverse:
        carry, ys_rest, each_rest = body(carry, remainder, last)
    if number == 1:
        carry, ys, made = body(carry, xs, jax.tree.map(lambda leaf: leaf[0], each))
        made = jax.tree.map(lambda leaf: leaf[None], made)
    elif number > 1:

        def one_block(carry, inputs):
            carry, ys, made = body(carry, *inputs)
            return carry, (ys, made)

        blocks = jax.tree.map(lambda leaf: leaf.reshape(number, block, *leaf.shape[1:]), xs)
        carry, (ys, made) = lax.scan(one_block, carry, (blocks, each), reverse=reverse)
        ys = jax.tree.map(lambda leaf: leaf.reshape(number * block, *leaf.shape[2:]), ys)
    if rest and not reverse:
        carry, ys_rest, each_rest = body(carry, remainder, last)
    if rest:
        ys = jax.tree.map(lambda a, b: jnp.concatenate([a, b]), ys, ys_rest)
        made = jax.tree.map(lambda a, b: jnp.concatenate([a, b[None]]), made, each_rest)
    return carry, ys, made


def choose(split, theta_h, xs, h_0, *, on_host=False):
    """How many steps make a block, from the shapes and the backend. Prefers a divisor of T: no rest, no copies."""
    T = jax.tree.leaves(xs)[0].shape[0]
    on_cpu = jax.default_backend() == "cpu"
    if not (on_cpu or on_host):
        return T

    def one_step(theta_h, xs, h_0):
        u_t = jax.tree.map(lambda leaf: leaf[0], split.project(theta_h, xs))
        return u_t, split.step(theta_h, u_t, h_0)[1]

    first = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((1, *leaf.shape[1:]), leaf.dtype), xs)
    widest = max(1, *(_bytes(part) for part in jax.eval_shape(one_step, theta_h, first, h_0)))
    if on_cpu and T * widest <= _CPU_WHOLE_BYTES:
        return T
    most = max(1, min(T, (_CPU_BLOCK_BYTES if on_cpu else _HOST_BLOCK_BYTES) // widest))
    divisor = max(k for k in range(1, most + 1) if T % k == 0)
    return divisor if 2 * divisor > most else most


def _bytes(tree):
    return sum(int(np.prod(leaf.shape)) * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))
