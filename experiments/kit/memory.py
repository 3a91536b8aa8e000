"""Two tasks whose answer lies far back in the input, as batches ``[T, *batch, d]`` drawn from a NumPy generator."""

import math

import numpy as np

import jaxbptt as jb

SYMBOLS = 8  # of the copying task; the labels after them are the blank and the marker
BLANK, MARKER = SYMBOLS, SYMBOLS + 1
LENGTH = 10  # of what is to be copied
ADDING_FLOOR = 1 / 6  # mean squared error of the constant 1: Var(u_1 + u_2) = 2/12 for u uniform on 0 … 1


def adding(rng: np.random.Generator, T: int, batch_shape: tuple[int, ...]) -> jb.training.Batch:
    """Numbers uniform on 0 … 1, two of them marked, one in each half; the target at the end is the sum of those two.

    Args:
        rng: where they come from.
        T: the length, at least 2.
        batch_shape: how many.

    Returns:
        xs ``[T, *batch, 2]``, number and mark; ys ``[T, *batch, 1]``, the sum at every step; and the mask
        ``[T, *batch]``, which counts the last step alone.

    Source: Hochreiter and Schmidhuber (1997), section 5.4; with a mark in each half Le, Jaitly and Hinton (2015).

    >>> xs, ys, _, mask, _ = adding(np.random.default_rng(0), 6, (3,))
    >>> bool(np.allclose((xs[..., 0] * xs[..., 1]).sum(0), ys[-1, :, 0])), mask[:, 0].tolist()
    (True, [False, False, False, False, False, True])
    """
    numbers = rng.random((T, *batch_shape), dtype=np.float32)
    halves = rng.integers(0, T // 2, batch_shape), rng.integers(T // 2, T, batch_shape)
    steps = np.arange(T).reshape(T, *[1] * len(batch_shape))
    marks = sum((steps == half).astype(np.float32) for half in halves)
    total = np.sum(numbers * marks, axis=0)
    ys = np.broadcast_to(total[..., None], (T, *batch_shape, 1))
    last = np.broadcast_to(steps == T - 1, numbers.shape)
    return jb.training.Batch(np.stack([numbers, marks], axis=-1), ys, mask=last)


def copying(rng: np.random.Generator, delay: int, batch_shape: tuple[int, ...]) -> jb.training.Batch:
    """Ten symbols, blanks, a marker, blanks: after the marker the ten are to be said again, and blanks before.

    The input is 10 symbols, ``delay - 1`` blanks, the marker and 10 blanks; the target ``delay + 10`` blanks and the 10
    symbols. So each symbol is asked for ``delay + 10`` steps after it was shown.

    Args:
        rng: where the symbols come from.
        delay: T of the paper, at least 1; the sequence has T + 20 steps.
        batch_shape: how many.

    Returns:
        xs ``[T + 20, *batch, 10]``, one-hot; ys ``[T + 20, *batch]``, labels 0 … 8. Every step counts.

    Source: Arjovsky, Shah and Bengio (2016), Unitary evolution recurrent neural networks, section 5.1.

    >>> xs, ys, *_ = copying(np.random.default_rng(0), 3, (2,))
    >>> bool((xs[:10].argmax(-1) == ys[-10:]).all()), xs[10:14, 0].argmax(-1).tolist(), set(ys[:13, 0].tolist())
    (True, [8, 8, 9, 8], {8})
    """
    symbols = rng.integers(0, SYMBOLS, (LENGTH, *batch_shape), dtype=np.int32)
    labels = np.full((delay + 2 * LENGTH, *batch_shape), BLANK, np.int32)
    ys = labels.copy()
    labels[:LENGTH], labels[LENGTH + delay - 1], ys[-LENGTH:] = symbols, MARKER, symbols
    return jb.training.Batch(np.eye(SYMBOLS + 2, dtype=np.float32)[labels], ys)


def copying_floor(delay: int) -> float:
    """The least cross-entropy a step, in nats, without memory of the symbols: the blanks are sure, each symbol ln 8.

    >>> [round(copying_floor(T), 4) for T in (100, 200, 500, 1000)]
    [0.1733, 0.0945, 0.04, 0.0204]
    """
    return LENGTH * math.log(SYMBOLS) / (delay + 2 * LENGTH)
