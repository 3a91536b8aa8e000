"""Bits to be compared across a delay, drawn from a generator; time first."""

import numpy as np


def delayed_xor(
    rng: np.random.Generator, length: int, batch: int, delay: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Random bits, of which two are compared: ``y_t = x_{t-d} xor x_{t-2d}``.

    No linear function of the past tells more than chance, and the bits between don't matter.

    Args:
        rng: where the numbers come from.
        length: T, above 2d.
        batch: how many sequences.
        delay: d.

    Returns:
        ``xs [T, batch, 1]``, ``ys [T, batch]`` and the mask ``[T, batch]`` of the steps t > 2d, which have a y_t; ys is
        0 elsewhere.

    Source: Engelken (2023), Gradient flossing, section 4, and its repository, RainerEngelken/GradientFlossing.

    >>> xs, ys, mask = delayed_xor(np.random.default_rng(0), 6, 1, 2)
    >>> xs[:, 0, 0].tolist(), ys[mask].tolist()  # 1 xor 1, 0 xor 1
    ([1.0, 1.0, 1.0, 0.0, 0.0, 0.0], [0.0, 1.0])
    """
    bits = rng.integers(0, 2, (length, batch), dtype=np.int32)
    ys = np.zeros((length, batch), np.float32)
    ys[2 * delay :] = bits[delay : length - delay] ^ bits[: length - 2 * delay]
    mask = np.broadcast_to(np.arange(length)[:, None] >= 2 * delay, ys.shape)
    return bits[:, :, None].astype(np.float32), ys, mask
