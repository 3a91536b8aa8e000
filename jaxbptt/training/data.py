"""The order of the data: indices as a function of the step, so that the position is one integer."""

import functools
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from jaxbptt._errors import arguments
from jaxbptt.training import _errors


class Order(NamedTuple):
    """Which examples make up which batch.

    Attributes:
        at: ``k -> indices [batch_size]`` of batch k, k = 0, 1, …, without end.
        per_epoch: how many batches make one pass.

    >>> order = shuffled(6, 2, seed=0)
    >>> sorted(int(k) for batch in range(order.per_epoch) for k in order.at(batch))
    [0, 1, 2, 3, 4, 5]
    """

    at: Callable[[int], np.ndarray]
    per_epoch: int


def shuffled(size: int, batch_size: int, *, seed: int) -> Order:
    """Batches without replacement, in a new order each pass; pass e is drawn from ``(seed, e)``.

    Nothing is carried: batch k is known without those before it. To go on at step k, ask for batch k. A rest that
    doesn't fill a batch is left out of that pass.

    Args:
        size: how many examples there are.
        batch_size: how many make a batch; at most `size`.
        seed: an integer of at least 0. The same for the same seed and NumPy.

    Returns:
        The `Order`.

    Raises:
        TypeError, ValueError: for sizes or a seed that make no sense.

    >>> order = shuffled(10, 4, seed=0)
    >>> order.per_epoch, order.at(0).shape
    (2, (4,))
    >>> bool((order.at(5) == shuffled(10, 4, seed=0).at(5)).all())
    True

    Used as ``fit(…, lambda k: (xs[:, order.at(k)], ys[:, order.at(k)]), steps=10 * order.per_epoch)``.
    """
    arguments.count("size", size)
    arguments.count("batch_size", batch_size)
    _errors.batch_within(size, batch_size)
    seed = _errors.natural("seed", seed)
    per_epoch = size // batch_size

    @functools.lru_cache(maxsize=1)  # a pass is asked for batch by batch
    def epoch(e):
        return np.random.default_rng([seed, e]).permutation(size)[: per_epoch * batch_size].reshape(-1, batch_size)

    def at(k):
        k = _errors.natural("k", k)
        return epoch(k // per_epoch)[k % per_epoch].copy()  # a caller may write into it, the next pass must not see it

    return Order(at, per_epoch)
