"""Arguments of diagnostics and remedies."""

import math

import jax
import numpy as np

from jaxbptt._axes import state_without_batch, traced
from jaxbptt._errors import words
from jaxbptt._errors.arguments import count
from jaxbptt._trees.cotangents import has_derivative


def more_than(name, value, least):
    if isinstance(value, bool) or not isinstance(value, (int, float, np.number)):
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
            f"`{name}` must be a square matrix [n, n]: got {words.shape(W)}; of a gated cell, take one gate's rows"
        )


def gate_blocks(name, W, gates):
    if not hasattr(W, "shape") or np.ndim(W) != 2 or W.shape[0] != gates * W.shape[1]:
        raise ValueError(
            f"`{name}` must have shape [gates · n, n] with gates={gates}: got {words.shape(W)}; "
            "gates is 1 for an Elman network, 3 for a GRU, 4 for an LSTM"
        )
    if not has_derivative(W):
        raise TypeError(f"`{name}` must be floating point: got {W.dtype}; write `{name}.astype(jnp.float32)`")


def one_threshold(**thresholds):
    given = {name: value for name, value in thresholds.items() if value is not None}
    if len(given) != 1:
        raise ValueError(
            f"one of {' and '.join(f'`{name}`' for name in thresholds)} must be given: got {given or 'neither'}"
        )
    for name, value in given.items():
        more_than(name, value, 0)


def one_input(cell, theta_h, x):
    """With an x of no batch f returns a state of no batch, as does this; ``None`` where the cell doesn't make one."""
    single = state_without_batch(cell, theta_h)
    if single is None or jax.tree.leaves(single) == []:
        return None
    with jax.numpy_rank_promotion("allow"):  # what f returns for a batch is said below
        h_1 = traced("cell.apply", cell.apply, theta_h, x, single)
    if [leaf.shape for leaf in jax.tree.leaves(h_1)] != [leaf.shape for leaf in jax.tree.leaves(single)]:
        raise ValueError(
            f"`x` must be one input, without axes of time and batch: got {words.describe(x)}, for which f makes of a "
            f"state {words.describe(single)} one of {words.describe(h_1)}; use `jax.vmap` over several"
        )
    return single


def first_guesses(h_0, single):
    """S, the leading axis of every leaf, and the only one beside those of a state without a batch."""
    shapes = [np.shape(leaf) for leaf in jax.tree.leaves(h_0)]
    sizes, ranks = {shape[:1] for shape in shapes}, [len(shape) for shape in shapes]
    known = jax.tree.structure(single) == jax.tree.structure(h_0)
    wanted = [1 + leaf.ndim for leaf in jax.tree.leaves(single)] if known else ranks
    if len(sizes) != 1 or sizes in ({()}, {(0,)}) or ranks != wanted:
        raise ValueError(
            f"`h_0` must hold S first guesses, leaves [S, …] with S ≥ 1: got {words.describe(h_0)}; "
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
        raise words.other_type("solver", "an optax solver", value, "; `optax.lbfgs()`, for one")
