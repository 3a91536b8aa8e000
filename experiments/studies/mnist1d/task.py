"""MNIST-1D: ten digits as signals of 40 numbers, made by the package of its author."""

import functools
import random
from typing import Any, NamedTuple

import numpy as np


class Signals(NamedTuple):
    """``xs [T, N, 1]`` and labels ``[N]``, for training and for the test."""

    train_xs: np.ndarray
    train_labels: np.ndarray
    test_xs: np.ndarray
    test_labels: np.ndarray


@functools.cache
def signals(shuffled: bool) -> Signals:
    """The 4000 + 1000 signals of the published seed, made by the author's package: nothing is downloaded.

    Args:
        shuffled: whether all signals go through one permutation of their 40 steps.
    """
    from mnist1d.data import get_dataset_args, make_dataset

    how: Any = get_dataset_args()
    how.shuffle_seq = shuffled
    before = np.random.get_state(), random.getstate()  # the package seeds the global generators
    made = make_dataset(how)
    np.random.set_state(before[0])
    random.setstate(before[1])
    xs, test_xs = (np.ascontiguousarray(made[name].T[:, :, None], np.float32) for name in ("x", "x_test"))
    return Signals(xs, made["y"].astype(np.int32), test_xs, made["y_test"].astype(np.int32))
