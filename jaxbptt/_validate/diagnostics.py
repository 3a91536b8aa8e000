"""Arguments of diagnostics and remedies."""

import math

import jax
import numpy as np

from jaxbptt._validate import _words
from jaxbptt._validate.factories import count


def more_than(name, value, least):
    number = isinstance(value, (int, float, np.number)) and not isinstance(value, bool)
    if not number:
        raise TypeError(f"`{name}` must be a number above {least}: got {type(value).__name__} ({value!r:.40})")
    if not least < value < math.inf:
        raise ValueError(f"`{name}` must be a finite number above {least}: got {value!r}")


def exponents(k, N):
    count("k", k)
    if k > N:
        raise ValueError(f"`k` must be at most the size of the state, N={N}: got {k}; there are no more exponents")


def stretches(T, transient, every):
    """The transient leaves something, and QRs fall on its end and on that of the sequence."""
    count("transient", transient, 0)
    count("every", every)
    if transient >= T:
        raise ValueError(
            f"`transient` must be less than the number of steps, T={T}: got {transient}; give a longer `xs`"
        )
    for name, value in (("the number of steps, T", T), ("`transient`", transient)):
        if value % every:
            raise ValueError(f"`every` must divide {name}={value}: got every={every}; 1 always does")


def square_matrix(name, W):
    if not hasattr(W, "shape") or np.ndim(W) < 2 or W.shape[-1] != W.shape[-2] or W.shape[-1] == 0:
        raise ValueError(
            f"`{name}` must be a square matrix [n, n]: got {_words.shape(W)}; of a gated cell, take one gate's rows"
        )


def gate_blocks(name, W, gates):
    if not hasattr(W, "shape") or np.ndim(W) != 2 or W.shape[0] != gates * W.shape[1]:
        raise ValueError(
            f"`{name}` must have shape [gates · n, n] with gates={gates}: got {_words.shape(W)}; "
            "gates is 1 for an Elman network, 3 for a GRU, 4 for an LSTM"
        )


def one_threshold(**thresholds):
    given = {name: value for name, value in thresholds.items() if value is not None}
    if len(given) != 1:
        raise ValueError(
            f"one of {' and '.join(f'`{name}`' for name in thresholds)} must be given: got {given or 'neither'}"
        )
    for name, value in given.items():
        more_than(name, value, 0)


def first_guesses(h_0):
    """S, the leading axis of every leaf."""
    sizes = {np.shape(leaf)[:1] for leaf in jax.tree.leaves(h_0)}
    if len(sizes) != 1 or sizes == {()} or sizes == {(0,)}:
        raise ValueError(
            f"`h_0` must hold S first guesses, leaves [S, …] with S ≥ 1: got {_words.describe(h_0)}; "
            "for one of them write `h[None]`"
        )
    return sizes.pop()[0]


def one_batch_axis(batch):
    if len(batch) != 1:
        raise ValueError(
            f"`h_0` must have one batch axis, that of its first guesses: got batch axes {batch}; "
            "for one guess write `h[None]`, for more axes `reshape` them into one"
        )


def solver(value):
    if not (callable(getattr(value, "init", None)) and callable(getattr(value, "update", None))):
        raise TypeError(f"`solver` must be an optax solver: got {type(value).__name__}; `optax.lbfgs()`, for one")
