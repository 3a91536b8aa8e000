"""Handwritten digits, 8 × 8 pixels, as sequences ``[T, N, 1]`` of pixels, time first."""

from typing import NamedTuple

import numpy as np

SIDE = 8  # of a digit's image
PIXELS = SIDE * SIDE
CLASSES = 10


class Split(NamedTuple):
    """``images [N, 64]`` in 0 … 1, row by row, and their labels ``[N]``, for training and for the test."""

    train_images: np.ndarray
    train_labels: np.ndarray
    test_images: np.ndarray
    test_labels: np.ndarray


def digits(seed: int, test_fraction: float = 0.2) -> Split:
    """The 1797 handwritten digits that come with scikit-learn, split with equal shares of every digit.

    Args:
        seed: of the split.
        test_fraction: how much of each digit is kept for the test.

    Returns:
        The `Split`.

    Source: Alpaydin and Kaynak (1998), Optical recognition of handwritten digits, UCI machine learning repository.
    """
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    images, labels = load_digits(return_X_y=True)
    images, labels = (images / 16).astype(np.float32), labels.astype(np.int32)
    train, test = train_test_split(np.arange(len(labels)), test_size=test_fraction, stratify=labels, random_state=seed)
    return Split(images[train], labels[train], images[test], labels[test])


def shifted(images: np.ndarray, rng: np.random.Generator, reach: int) -> np.ndarray:
    """Each image moved by up to `reach` pixels along both axes, at random; what comes in is 0.

    >>> image = np.eye(1, PIXELS, k=9, dtype=np.float32)  # one bright pixel, off the border
    >>> float(shifted(image, np.random.default_rng(0), 1).sum())
    1.0
    """
    moves = rng.integers(0, 2 * reach + 1, (2, len(images), 1))
    rows, columns = moves + np.arange(SIDE)
    padded = np.pad(images.reshape(-1, SIDE, SIDE), ((0, 0), (reach, reach), (reach, reach)))
    return padded[np.arange(len(images))[:, None, None], rows[:, :, None], columns[:, None, :]].reshape(-1, PIXELS)


def pixel_by_pixel(images: np.ndarray) -> np.ndarray:
    """``[N, 64]`` as sequences ``[64, N, 1]``."""
    return np.ascontiguousarray(images.T[:, :, None])
