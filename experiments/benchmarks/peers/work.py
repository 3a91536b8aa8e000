"""What every contender computes: F and its gradient, for one layer, from the same weights and inputs.

    F = mean of h_{t,b,k}² over time, batch and units          ∂F/∂θ_h,  ∂F/∂x_{1..T},  ∂F/∂h_0

The equations are those of cuDNN and ``torch.nn``; rows of the weights are gates, r, z, n (GRU) or i, f, g, o (LSTM).
The second bias of the GRU, b_h, starts at 0 since not every library has one.
"""

from typing import Literal, NamedTuple

import numpy as np

from experiments.kit.options import BadInputError

CellName = Literal["elman", "gru", "lstm"]
GATES: dict[str, int] = {"elman": 1, "gru": 3, "lstm": 4}


class Shape(NamedTuple):
    """Batch, steps, inputs and units."""

    B: int
    T: int
    d: int
    n: int

    def __str__(self):
        return ",".join(map(str, self))


class Work(NamedTuple):
    """One layer, its numbers in float32, and how much of it is asked for.

    Attributes:
        cell: which equations.
        shape: (B, T, d, n).
        weights: ``W_x [G·n, d]``, ``W_h [G·n, n]``, ``b [G·n]``, and ``b_h [3n]`` for the GRU; G gates.
        xs: ``[T, B, d]``.
        h_0: ``(h_0,)``, or ``(h_0, c_0)`` for the LSTM, each ``[B, n]``.
        reads: F reads ``"all"`` outputs or the ``"last"`` alone: then no outputs need be kept.
    """

    cell: CellName
    shape: Shape
    weights: dict[str, np.ndarray]
    xs: np.ndarray
    h_0: tuple[np.ndarray, ...]
    reads: Literal["all", "last"] = "all"


def shape(text: str) -> Shape:
    """A shape as the command line has it.

    >>> shape("64,256,128,32")
    Shape(B=64, T=256, d=128, n=32)

    Raises:
        BadInputError: unless it is four positive integers.
    """
    sizes = text.split(",")
    if len(sizes) != 4 or not all(size.strip().isdecimal() and int(size) > 0 for size in sizes):
        raise BadInputError(f"a shape must be four positive integers B,T,d,n such as 64,256,128,32: got `{text}`")
    return Shape(*map(int, sizes))


def make(cell: CellName, shape: Shape, seed: int = 0, reads: Literal["all", "last"] = "all") -> Work:
    """Random numbers of a size that saturates no gate and lets no gradient vanish or explode.

    >>> work = make("lstm", Shape(B=2, T=5, d=3, n=4))
    >>> work.weights["W_h"].shape, len(work.h_0)
    ((16, 4), 2)
    """
    rng = np.random.default_rng(seed)
    B, T, d, n = shape
    G = GATES[cell]
    weights = {
        "W_x": rng.normal(0, 0.5 / np.sqrt(d), (G * n, d)),
        "W_h": np.concatenate([np.linalg.qr(rng.normal(size=(n, n)))[0] for _ in range(G)]),
        "b": rng.normal(0, 0.1, G * n),
    }
    if cell == "gru":
        weights["b_h"] = np.zeros(G * n)
    xs = rng.standard_normal((T, B, d), np.float32)
    h_0 = tuple(rng.normal(0, 0.3, (B, n)).astype(np.float32) for _ in range(1 + (cell == "lstm")))
    return Work(cell, shape, {name: W.astype(np.float32) for name, W in weights.items()}, xs, h_0, reads)


def flops(cell: CellName, shape: Shape) -> int:
    """6·B·T·n·G·(n + d): the products with weights in F and its gradient; 2 flops each of forward, ∂/∂h and ∂/∂W.

    >>> flops("lstm", Shape(B=64, T=256, d=256, n=256))
    51539607552
    """
    B, T, d, n = shape
    return 6 * B * T * n * GATES[cell] * (n + d)


def errors(found: dict[str, np.ndarray], reference: dict[str, np.ndarray]) -> dict[str, float]:
    """‖found - reference‖ / ‖reference‖ of each entry of `found`, F among them.

    A gradient that has vanished, below 1e-9 of the largest, counts beside that.

    >>> errors({"h_0": np.array([3.0, 4.5])}, {"h_0": np.array([3.0, 4.0]), "xs": np.ones(2)})
    {'h_0': 0.1}
    """
    norms = {name: float(np.linalg.norm(value)) for name, value in reference.items()}
    least = 1e-9 * max(norms.values())
    return {
        name: float(np.linalg.norm(value - reference[name])) / max(norms[name], least) for name, value in found.items()
    }
