"""Symbols whose order is the class, drawn from a generator; time first."""

import numpy as np

SYMBOLS = 6  # A, B, and the distractors c, d, e, f
ORDERS = 4  # AA, BA, AB, BB


def temporal_order(rng: np.random.Generator, length: int, batch: int) -> tuple[np.ndarray, np.ndarray]:
    """Distractors but for two symbols out of {A, B}, whose order is the class.

    With L = `length`, the first stands somewhere in L/10 … 2L/10, the second in 5L/10 … 6L/10.

    Args:
        rng: where the numbers come from.
        length: L, at least 10.
        batch: how many sequences.

    Returns:
        ``symbols [L, batch]``, 0 for A, 1 for B, 2 … 5 for c … f; and the classes ``[batch]``: first + 2 second.

    Source: Hochreiter and Schmidhuber (1997), Long short-term memory, task 6a; the positions are those of the
    repository of Pascanu, Mikolov and Bengio (2013), pascanur/trainingRNNs.

    >>> symbols, classes = temporal_order(np.random.default_rng(0), 10, 1)
    >>> symbols[:, 0].tolist(), classes.tolist()  # B at 1, B at 5
    ([5, 1, 4, 3, 3, 1, 2, 2, 2, 5], [3])
    """
    tenth = length // 10
    symbols = rng.integers(2, SYMBOLS, (length, batch), dtype=np.int32)
    first, second = rng.integers(0, 2, (2, batch), dtype=np.int32)
    positions = rng.integers(0, tenth, (2, batch)) + np.array([[tenth], [length // 2]])
    np.put_along_axis(symbols, positions, np.stack([first, second]), axis=0)
    return symbols, first + 2 * second
