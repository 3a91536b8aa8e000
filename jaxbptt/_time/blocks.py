"""Time in blocks: parallel work is done once for each block, sequential work inside it.

On a CPU, a product over all of T writes an array far larger than the cache. Every fresh page of it is a fault. In
blocks of a few megabytes the same product is a gain. On an accelerator one block is best, unless memory is short
(`choose`).
"""

import functools
import math
import operator

import jax
import jax.numpy as jnp
from jax import lax

from jaxbptt._time.loop import on_cpu
from jaxbptt._trees.cotangents import dtype_of

# Sizes of the largest array over time, measured on a CPU. Up to some 8 MiB one block is best: no copies between a block
# and the whole. Above it, blocks of 1 to 3 MiB are best, or of half the size of a large θ_h: each block reads and
# writes all of ∂F/∂θ_h.
_CPU_WHOLE_BYTES = 8 * 2**20
_CPU_BLOCK_BYTES = 2 * 2**20
_RAGGED_BYTES, _LEAST_BYTES = 2**20, 2**17
_BOUNDED_BYTES = 64 * 2**20  # on an accelerator: transfers run at full rate, and this is small beside the memory


MANY = 8  # blocks, of which it pays to ask whether any step is real


def choose(step, theta_h, T, *, bounded=False, ragged=False):
    """How many steps make a block. Prefers a divisor of T: nothing to pad, no copies.

    `step` is the result of one step, ``(u_t, h_t, residuals_t)``. Arrays fetched from the host or computed again are
    `bounded`: they should exist for one block at a time. All of T is then one block only if it is small, on an
    accelerator too. A size that is a symbol, in a program exported for any batch, counts as 1.

    Of a `ragged` batch whole blocks may not be real: there are `MANY` at least, that divide T. On a CPU such a block is
    no smaller than the question is worth, nor larger than a cache; elsewhere the host is asked.
    """
    *of_step, of_theta = (
        sum(math.prod(size for size in jnp.shape(leaf) if isinstance(size, int)) * dtype_of(leaf).itemsize
            for leaf in jax.tree.leaves(tree))
        for tree in (*step, theta_h)
    )  # fmt: skip
    widest = max(1, *of_step)
    if ragged:
        most, least = (_RAGGED_BYTES // widest, _LEAST_BYTES / widest) if on_cpu() else (T, 32)
        part = max((k for k in range(1, min(T // MANY, most) + 1) if T % k == 0), default=0)
        if part and part >= least:
            return part
    if on_cpu():
        block = max(_CPU_BLOCK_BYTES, min(of_theta // 2, _CPU_WHOLE_BYTES))
        whole = block if bounded else _CPU_WHOLE_BYTES
    else:
        whole, block = (_BOUNDED_BYTES if bounded else math.inf), _BOUNDED_BYTES
    if T * widest <= whole:
        return T
    most = max(1, min(T, block // widest))
    divisor = max(k for k in range(1, most + 1) if T % k == 0)
    return divisor if 2 * divisor > most else most


def even(T, most):
    """The smallest block that needs no more blocks than one of `most` steps."""
    return -(-T // -(-T // most))


def scan(body, carry, xs, K, *, each=None, reverse=False):
    """``body(carry, xs_of_a_block, each_of_a_block) -> (carry, ys_of_a_block, each_of_a_block)``, block by block.

    K divides T. `each` has one entry a block, on a leading axis, and so has the last result: what a block keeps for the
    way back, for example. Returns the carry, ys over time, and these entries.
    """
    number = jax.tree.leaves(xs)[0].shape[0] // K
    if number == 1:
        carry, ys, made = body(carry, xs, jax.tree.map(operator.itemgetter(0), each))
        return carry, ys, jax.tree.map(operator.itemgetter(None), made)

    def one_block(carry, inputs):
        carry, ys, made = body(carry, *inputs)
        return carry, (ys, made)

    carry, (ys, made) = lax.scan(one_block, carry, (cut(xs, K), each), reverse=reverse)
    return carry, join(ys), made


def cut(xs, K):
    """``[T, …]`` to ``[T / K, K, …]``."""
    leaves, structure = jax.tree.flatten(xs)
    return structure.unflatten([leaf.reshape(leaf.shape[0] // K, K, *leaf.shape[1:]) for leaf in leaves])


join = functools.partial(jax.tree.map, functools.partial(lax.collapse, start_dimension=0, stop_dimension=2))
"""The inverse of `cut`."""
