"""Which numbers of θ_h reach which numbers of the state, found from the cell: what of a_t is stored and multiplied.

b_t [N, P] and c_t [N, N] have zeros that no θ_h, x_t or h_{t-1} changes: a row of a weight enters one unit, a diagonal
recurrence leaves each unit alone, `cells.sparse` cuts weights. Where these are is found once for each cell and shape,
by derivatives at random points.

1. Columns of b_t with the same rows are a *set*: pattern(b_t) is a few sets, and the set of each column.
2. After k steps a set holds what c_t has spread it to: S_k = S_1 ∪ pattern(c_t) S_{k-1}. SnAp-n keeps S_n, RTRL all.
3. Columns with the same S_n are a *block*: rows R, columns C, and a_t[R, C] = b_t[R, C] + c_t[R, R] a_{t-1}[R, C].
4. Rows of b_t without a column in common are a *colour*. One pullback gives them together (Curtis, Powell and Reid
   1974): an Elman network's b_t takes one, whatever n.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxbptt import _axes
from jaxbptt._trees import vectors
from jaxbptt._trees.cotangents import dtype_of, has_derivative
from jaxbptt.cells._from_split import split_of
from jaxbptt.estimators import _errors

_POINTS = 32  # where a derivative may vanish by chance, as relu's does for half of all inputs
_ROWS = 64  # at once


class Block(NamedTuple):
    """``rows [G, r]`` and ``cols [G, m]`` of G blocks of about one size; N and P stand for padding."""

    rows: np.ndarray
    cols: np.ndarray


class Pattern(NamedTuple):
    """What is known of b_t and c_t before any number is.

    Attributes:
        sets: ``[S + 1, N + 1]``, whether row i is in set s of step 1. The last ones here and below are the padding's.
        set_of: ``[P + 1]``, the set of each column.
        c: ``[N + 1, N + 1]``, whether c_t may be other than zero.
        b_colours, c_colours: ``[N + 1]``, of the rows of b_t and of c_t.
        blocks: step 3.
    """

    sets: np.ndarray
    set_of: np.ndarray
    c: np.ndarray
    b_colours: np.ndarray
    c_colours: np.ndarray
    blocks: tuple[Block, ...]


def shapes(tree):
    """`tree` as something hashable: its structure, and of each leaf the shape, the dtype and whether that is weak."""
    leaves, structure = jax.tree.flatten(tree)
    return structure, tuple((np.shape(leaf), dtype_of(leaf), _is_weak(leaf)) for leaf in leaves)


def _is_weak(leaf):
    return isinstance(leaf, (int, float, complex)) or getattr(leaf, "weak_type", False)


def pattern(cell, theta_h, x_t, h_tm1, order, cut=None):
    """The `Pattern` of these shapes, one member's. ``order=None``: until nothing more is reached.

    ``cut``: ``(cell, theta_h, h_tm1) -> theta_h`` of which c_t is taken.
    """
    return _pattern(cell, shapes(theta_h), shapes(x_t), shapes(h_tm1), order, cut)


@functools.lru_cache(maxsize=64)
def _pattern(cell, theta_h, x_t, h_tm1, order, cut):
    with jax.ensure_compile_time_eval():
        b, c = _found(cell, theta_h, x_t, h_tm1, cut)
    return _arranged(b, c, order)


def dense(theta_h, h_tm1):
    """The pattern without a zero."""
    P, N = (jax.eval_shape(lambda tree: vectors.flatten(tree)[0], tree).size for tree in (theta_h, h_tm1))
    return _arranged(np.ones((N, P), bool), np.ones((N, N), bool), 1)


def _arranged(b, c, order):
    N, P = b.shape
    packed = np.ascontiguousarray(np.packbits(b, axis=0).T)
    _, first, set_of = np.unique(packed.view(f"V{packed.shape[1]}"), return_index=True, return_inverse=True)
    sets = b.T[first]
    reached = sets
    for _ in range(N if order is None else order - 1):
        more = sets | ((reached.astype(np.float32) @ c.T.astype(np.float32)) > 0)
        if np.array_equal(more, reached):
            break
        reached = more
    kinds, kind_of = np.unique(reached, axis=0, return_inverse=True)
    kind_of_column = kind_of.ravel()[set_of.ravel()]
    members = [
        (np.flatnonzero(kind), np.flatnonzero(kind_of_column == k)) for k, kind in enumerate(kinds) if kind.any()
    ]
    return Pattern(
        sets=np.pad(sets, ((0, 1), (0, 1))),
        set_of=np.append(set_of.ravel(), len(sets)).astype(np.int32),
        c=np.pad(c, ((0, 1), (0, 1))),
        b_colours=np.append(_colours(sets.T), 0),
        c_colours=np.append(_colours(c), 0),
        blocks=_blocks(members, N, P),
    )


def _blocks(members, N, P):
    """Blocks of about one number of rows side by side, so that one batched product serves them all."""
    sizes = {}
    for rows, cols in members:
        sizes.setdefault(int(np.ceil(np.log(len(rows)) / np.log(1.25))), []).append((rows, cols))
    return tuple(Block(_padded([rows for rows, _ in some], N), _padded([cols for _, cols in some], P))
                 for _, some in sorted(sizes.items()))  # fmt: skip


def _padded(lists, fill):
    out = np.full((len(lists), max(map(len, lists))), fill, np.int32)
    for row, numbers in zip(out, lists, strict=True):
        row[: len(numbers)] = numbers
    return out


def _colours(matrix):
    """Rows of a matrix in as few groups as a greedy choice finds, none with a column in common."""
    close = (matrix.astype(np.float32) @ matrix.T.astype(np.float32)) > 0
    colours = np.full(len(matrix), -1)
    for row, near in enumerate(close):
        taken = set(colours[:row][near[:row]])
        colours[row] = next(k for k in range(len(matrix)) if k not in taken)
    return colours


def _found(cell, theta_h, x_t, h_tm1, cut):
    """Where b_t, or dh_0/dθ_h, and c_t are not zero, ``[N, P]`` and ``[N, N]``: everywhere, where f is never finite."""
    rng = np.random.default_rng(0)
    theta = _drawn(rng, theta_h, ())
    tokens = any(jnp.issubdtype(dtype, jnp.integer) for _, dtype, _ in x_t[1])
    number = max([_POINTS, *(shape[0] for shape, _, _ in theta_h[1] if shape and tokens)])  # each row of a table
    points = _drawn(rng, x_t, (number,)), _drawn(rng, h_tm1, (number,))
    weights = jnp.asarray(rng.standard_normal(number), jnp.float32)  # of the points: a sum is zero where each is
    any_finite, same, b, c, start = jax.device_get(
        jax.jit(_derivatives, static_argnums=(0, 1))(cell, cut, theta, *points, weights)
    )
    if not same:
        _errors.reads_otherwise(cell)
    alone = np.eye(len(c), dtype=bool)  # at a padded step the state stands still
    c = alone if split_of(cell).jacobian == "diagonal" else c | alone
    return ((b | start).T, c) if any_finite else (np.ones_like(b.T), np.ones_like(c))


def _derivatives(cell, cut, theta, xs, hs, weights):
    """Whether f is finite anywhere, and the same where it is cut; where b_tᵀ, c_t and (dh_0/dθ_h)ᵀ are not zero."""
    leaves = [
        leaf for leaf in jax.tree.leaves(jax.vmap(cell.apply, (None, 0, 0))(theta, xs, hs)) if has_derivative(leaf)
    ]
    finite = jnp.all(jnp.stack([jnp.all(jnp.isfinite(leaf.reshape(len(weights), -1)), 1) for leaf in leaves]), 0)
    taken = jnp.where(finite, jnp.arange(len(weights)), jnp.argmax(finite))
    xs, hs = jax.tree.map(lambda leaf: leaf[taken], (xs, hs))
    vector, theta_of = vectors.flatten(theta)

    def f(vector, hs_of):
        def one(x_t, h_tm1, h):
            theta_h, h_tm1 = theta_of(vector), vectors.flatten(h_tm1)[1](h)
            if cut is None:
                return vectors.flatten(cell.apply(theta_h, x_t, h_tm1))[0]
            for_b = cell.apply(theta_h, x_t, lax.stop_gradient(h_tm1))
            for_c = cell.apply(lax.stop_gradient(cut(cell, theta_h, h_tm1)), x_t, h_tm1)
            return jnp.stack([vectors.flatten(for_b)[0], vectors.flatten(for_c)[0]])

        return jax.vmap(one)(xs, hs, hs_of)

    def row(unit):
        theta_bar, h_bars = pull(jnp.outer(weights.astype(unit.dtype), unit))
        return theta_bar != 0, jnp.any(h_bars != 0, axis=0)

    h_t, pull = jax.vjp(
        lambda *given: jnp.sum(f(*given), 1) if cut else f(*given),
        vector,
        jax.vmap(lambda h: vectors.flatten(h)[0])(hs),
    )
    b, c = lax.map(row, jnp.eye(h_t.shape[-1], dtype=h_t.dtype), batch_size=_ROWS)
    start = jnp.zeros_like(b)
    if _axes.state_without_batch(cell, theta) is not None:  # it may be learned
        of_theta = jax.jacrev(lambda vector: vectors.flatten(cell.initial_state(theta_of(vector), ()))[0])
        start = of_theta(vector) != 0
    both = f(vector, jax.vmap(lambda h: vectors.flatten(h)[0])(hs)) if cut else jnp.zeros((1, 2, 1))
    same = jnp.all(jnp.abs(both[:, 0] - both[:, 1]) <= 1e-3 * (1 + jnp.abs(both[:, 0])))
    return jnp.any(finite), same | ~jnp.any(finite), b.T, c, start.T


def _drawn(rng, given, points):
    """Random numbers of these shapes and dtypes, at each of the points."""
    structure, leaves = given
    return structure.unflatten([_leaf(rng, points + shape, dtype, weak, len(points)) for shape, dtype, weak in leaves])


def _leaf(rng, shape, dtype, weak, points):
    if weak:  # a plain number
        return jnp.broadcast_to(jnp.asarray(0.7 if jnp.issubdtype(dtype, jnp.inexact) else 1), shape)
    if jnp.issubdtype(dtype, jax.dtypes.prng_key):
        return jax.random.split(jax.random.key(0), shape)
    if jnp.issubdtype(dtype, jnp.bool_):
        return jnp.asarray(rng.random(shape) < 0.5)
    if not jnp.issubdtype(dtype, jnp.inexact):  # tokens: each of them once
        ids = np.arange(shape[0] if points else 1).reshape(-1, *(1,) * (len(shape) - 1))
        return jnp.asarray(rng.permuted(np.broadcast_to(ids, shape), axis=0), dtype)
    drawn = rng.standard_normal(shape)
    if not points:
        drawn = drawn / np.sqrt(max(shape[-1:] or (1,)))
    else:
        drawn[::2] = rng.random(drawn[::2].shape)  # f may want a time or a rate, which is positive
    if jnp.issubdtype(dtype, jnp.complexfloating):
        drawn = drawn + 1j * rng.standard_normal(shape)
    return jnp.asarray(drawn, dtype)
