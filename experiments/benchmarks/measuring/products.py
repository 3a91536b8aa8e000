"""The speed of this machine's matrix product, and what no contender can be faster than."""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from experiments.benchmarks.peers.work import GATES, CellName, Shape, flops

# The side of the product that the floor goes by, how many in a row, and the flops of steps in a row: a GPU has done
# 1024³ sooner than it can be asked for it.
_GEMM = {"cpu": (1024, 1, 1e8)}
_GEMM_OF_AN_ACCELERATOR = (4096, 20, 1e11)


class Products(NamedTuple):
    """What a matrix product takes here.

    Attributes:
        square: the measure of the floor: a product of 1024³; on an accelerator 20 of 4096³, one after the other.
        step: the product of one step, [B, n]·[n, G·n], so many times in a row.
        square_flops: of the one.
        step_flops: of the other.
    """

    square: Callable[[], object]
    step: Callable[[], object]
    square_flops: int
    step_flops: int


def products(cell: CellName, shape: Shape) -> Products:
    """Both, compiled and ready to be timed as contenders."""
    B, _, _, n = shape
    columns = GATES[cell] * n
    side, squares, step_flops = _GEMM.get(jax.devices()[0].platform, _GEMM_OF_AN_ACCELERATOR)
    times = max(1, min(1000, int(step_flops / (2 * B * n * columns))))
    square = jax.random.normal(jax.random.key(0), (side, side), jnp.float32) / math.sqrt(side)  # keeps lengths
    W, h = jnp.full((n, columns), 1 / n), jnp.ones((B, n))

    @jax.jit
    def multiply(a):
        return a @ a if squares == 1 else jax.lax.fori_loop(0, squares, lambda _, b: b @ a, a)

    @jax.jit
    def steps(h, W):  # each needs the one before
        return jax.lax.fori_loop(0, times, lambda _, h: (h @ W)[:, :n], h)

    def ready(function, *arguments):
        jax.block_until_ready(function(*arguments))
        return lambda: jax.block_until_ready(function(*arguments))

    return Products(ready(multiply, square), ready(steps, h, W), 2 * side**3 * squares, 2 * B * n * columns * times)


def floor(cell: CellName, shape: Shape, flops_per_second: float) -> float:
    """Seconds that the products alone would take at this rate.

    >>> round(floor("lstm", Shape(64, 256, 256, 256), 300e9), 3)
    0.172
    """
    return flops(cell, shape) / flops_per_second
