"""The double sum cut at a lag: what a stream keeps of the past, and the deltas of many losses, lag after lag.

    delta_t^(0) = ∂L_t/∂h_t,      delta_t^(k+1) = c_{t-k}ᵀ delta_t^(k)       = ∂L_t/∂h_{t-k-1}
    D_s = Σ_k delta_{s+k}^(k)                                                what arrives at step s
    ∂F/∂θ_h ≈ Σ_s b_sᵀ D_s                                                   one product over time

All losses take a lag at once: K pullbacks in h, and one product for θ_h. The steps kept and those of the chunk lie end
to end. A step before the first is not real, as in `cells.masked`: it hands a delta on.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from jaxbptt import _axes, _masks, losses, readouts
from jaxbptt._errors import trees
from jaxbptt._time import sweeps
from jaxbptt._time.loop import hold
from jaxbptt._trees import cotangents
from jaxbptt.cells._from_split import split_of
from jaxbptt.cells.combinators.masked import MaskedInput, masked
from jaxbptt.estimators import _errors, _inputs
from jaxbptt.types import Array, TimeSplit


class Kept(NamedTuple):
    """The last N steps: their inputs ``[N, *batch, …]``, the states before them, and how many were taken.

    ``steps`` counts up to N, then on from N modulo the stride.
    """

    xs: Any
    hs_tm1: Any
    steps: Array


class TruncatedState(NamedTuple):
    """``h``: the state; ``kept``: the last inputs and the states before them. ``None``: before the first chunk.

    >>> TruncatedState(h=jnp.zeros((4, 5)), kept=None).h.shape
    (4, 5)
    """

    h: Any
    kept: Kept | None


class Chunk(NamedTuple):
    """A chunk run forward: F and ∂F/∂θ_o, its states, and each ∂L_t/∂h_t."""

    F: Array
    theta_o_bar: Any
    h_T: Any
    hs: Any
    h_bars: Any


class Window(NamedTuple):
    """`fill` steps and a chunk end to end, as `cells.masked` reads them; steps taken before; what goes on."""

    split: TimeSplit
    steps: sweeps.Steps
    fill: int
    taken: Array
    kept: Kept | None


class Sweeps(NamedTuple):
    """Sweeps side by side, one ending every `stride` steps: steps in rows of as many, and the losses of each sweep."""

    rows: sweeps.Steps
    bars: Any
    stride: int


def init(model, N, inputs, theta, h_0=None, *, key=None):
    """The state before the first step, of an estimator that keeps N steps."""
    trees.theta(theta)
    return TruncatedState(h_0, _begin(model.cell, theta.h, h_0, inputs, N))


def _begin(cell, theta_h, h_0, inputs, N):
    """N steps that were not taken; ``None`` without any, or where only the first chunk says what an input is."""
    waits = h_0 is None or N == 0 or cell.draws is not None  # whether an input has a key
    x_t = None if waits else _inputs.example(cell, theta_h, inputs)
    if x_t is None:
        return None
    batch = _axes.batch_shape(cell, theta_h, h_0)
    xs = jax.tree.map(lambda leaf: jnp.zeros((N, *batch, *leaf.shape), leaf.dtype), x_t)
    return Kept(xs, _copies(h_0, N), _no_steps(batch, h_0))


def forward(model, loss, reduction, theta, given):
    """The states from left to right; then all losses and their cotangents at once."""
    split = split_of(given.cell)
    h_T, hs, _ = sweeps.forward(split, hold(split, theta.h, given.h_0), given.xs, given.h_0, keep=False)

    def F(theta_o, hs):
        y_hats = readouts.over_time(model.readout, *cotangents.alike(theta_o, jax.vmap(model.cell.output)(hs)))
        Ls = losses.of_steps(loss, y_hats, given.ys, given.weights)
        return losses.reduced(Ls, given.weights, Ls.shape[0], given.batch, reduction).astype(given.L_dtype)

    value, pull = cotangents.pullback(F, theta.o, hs)
    theta_o_bar, h_bars = pull(cotangents.zero((), value.dtype, value) + 1)
    return Chunk(value, theta_o_bar, h_T, hs, h_bars)


def window(model, kept, given, chunk, lengths, N, most, stride=1):
    """The `Window` of a chunk, with N steps before it; at most `most` where none are kept yet."""
    xs = jax.tree.map(jnp.asarray, given.xs if lengths is None else given.xs.x)
    T = jax.tree.leaves(xs)[0].shape[0]
    before = kept
    if before is None:
        first = jax.tree.map(lambda leaf: leaf[0], xs)
        before = Kept(_copies(first, most), _copies(given.h_0, most), _no_steps(given.batch, given.h_0))
    else:
        _errors.kept(kept, Kept(_steps_of(xs, N), _steps_of(chunk.hs, N), _no_steps(given.batch, given.h_0)))
    if lengths is not None and N:
        _errors.inputs_of_members(xs, given.batch)
    fill = N if kept is not None else most
    real = jnp.ones((T, *before.steps.shape), bool) if lengths is None else _masks.real(xs, lengths)
    taken = jnp.sum(real, axis=0, dtype=jnp.int32)
    were = _masks.over_batch(jnp.arange(fill, dtype=jnp.int32), taken.shape)
    real = jnp.concatenate([were >= fill - jnp.broadcast_to(before.steps, were.shape), real])
    xs, hs_tm1 = _end_to_end((before.xs, before.hs_tm1), (xs, sweeps.shifted(given.h_0, chunk.hs)))
    after = None
    if N:
        last = _masks.over_batch(jnp.arange(N, dtype=jnp.int32), taken.shape)
        last = jnp.maximum(last + jnp.broadcast_to(fill - N + taken, last.shape), 0)
        total = before.steps + taken
        xs_after, hs_after = _at((xs, hs_tm1), last)
        if lengths is not None:  # what pads a member that has taken no step goes nowhere
            there = _at(real, last)
            xs_after = cotangents.where(there, xs_after, jax.tree.map(jnp.zeros_like, xs_after))
        after = Kept(xs_after, hs_after, jnp.where(total > N, N + (total - N) % stride, total))
    split, hs = split_of(masked(model.cell)), sweeps.shifted_back(hs_tm1, chunk.h_T)
    return Window(split, sweeps.Steps(MaskedInput(xs, real), hs_tm1, hs, None), fill, before.steps, after)


def with_residuals(split, theta_h, steps):
    """What the pullbacks read beside inputs and states, for all steps at once."""
    xs, hs_tm1, hs, _ = steps
    return steps._replace(residuals=split.residuals(theta_h, split.project(theta_h, xs), hs_tm1, hs))


def in_rows(window, theta_h, bars, K, stride=1):
    """The `Sweeps` over K steps, in rows that end where a sweep does: after a multiple of the stride."""
    steps, T = window.steps, len(jax.tree.leaves(bars)[0])
    before = (-(-K // stride) - 1) * stride  # places before the row in which the chunk begins
    if stride > 1:
        place = jnp.arange(before + -(-(T + stride - 1) // stride) * stride, dtype=jnp.int32) - before
        place = _masks.over_batch(place, window.taken.shape)
        place = place - jnp.broadcast_to(window.taken % stride, place.shape)  # 0: the first step of the chunk
        steps = _at(steps, jnp.clip(place + window.fill, 0, window.fill + T - 1))
        there = (place >= -window.fill) & (place < T)
        steps = steps._replace(xs=steps.xs._replace(mask=steps.xs.mask & there))
        place, there = place[before:], there[before:]
        bars = _at(bars, jnp.clip(place, 0, T - 1))
        bars = cotangents.where(there & (place >= 0), bars, jax.tree.map(jnp.zeros_like, bars))
    cut = functools.partial(jax.tree.map, lambda leaf: leaf.reshape(-1, stride, *leaf.shape[1:]))
    return Sweeps(cut(with_residuals(window.split, theta_h, steps)), cut(bars), stride)


def nothing(across):
    """No deltas yet, and D = 0 in a dtype to sum in."""
    deltas = jax.tree.map(lambda leaf: jnp.zeros_like(leaf[:, 0]), across.bars)
    return deltas, cotangents.zeros(across.rows.hs, to_sum=True)


def arrive(across, k, deltas, D):
    """At lag k the losses of the k-th step from the end of each sweep join it; D gains what arrives."""
    stride = across.stride
    column = (stride - 1 - k) % stride
    joining = jax.tree.map(lambda leaf: lax.dynamic_index_in_dim(leaf, column, 1, keepdims=False), across.bars)
    deltas = jax.tree.map(lambda delta, bar: jnp.where(k < stride, delta + bar, delta), deltas, joining)
    row, column = _place(across, k)

    def added(total, delta):
        start = (row, column, *[0 * row] * (total.ndim - 2))
        here = lax.dynamic_slice(total, start, (len(delta), 1, *total.shape[2:]))
        return lax.dynamic_update_slice(total, here + delta[:, None].astype(total.dtype), start)

    return deltas, jax.tree.map(added, D, deltas)


def pull(split, theta_h, across, k, deltas):
    """c_{t-k}ᵀ delta_t of every sweep."""
    return jax.vmap(functools.partial(sweeps.step_vjp, split, theta_h))(at_lag(across, k), deltas)[1]


def at_lag(across, k):
    """The step that each sweep is at: its last but k."""
    row, column = _place(across, k)
    number = len(jax.tree.leaves(across.bars)[0])

    def here(leaf):
        leaf = lax.dynamic_slice_in_dim(leaf, row, number)
        return lax.dynamic_index_in_dim(leaf, column, 1, keepdims=False)

    return jax.tree.map(here, across.rows)


def theta_h_bar(split, theta_h, across, D):
    """Σ_s b_sᵀ D_s."""
    flat = functools.partial(jax.tree.map, lambda leaf: leaf.reshape(-1, *leaf.shape[2:]))
    steps = flat(across.rows)
    D = cotangents.narrow(flat(D), steps.hs)
    z_bars = jax.vmap(functools.partial(sweeps.step_vjp, split, theta_h))(steps, D)[0]
    return split.param_vjp(theta_h, *steps, z_bars)


def of_the_start(across, K, deltas):
    """∂F/∂h_0 by the sweeps that go back to the start: those that end by step K of a sequence."""
    number = len(jax.tree.leaves(across.bars)[0])
    reaches = across.stride * jnp.arange(1, number + 1) <= K
    deltas = cotangents.where(reaches, deltas, jax.tree.map(jnp.zeros_like, deltas))
    return jax.tree.map(lambda leaf: jnp.sum(leaf, axis=0), deltas)


def _place(across, k):
    """Row of the first sweep, and column, at lag k."""
    before = len(jax.tree.leaves(across.rows.hs)[0]) - len(jax.tree.leaves(across.bars)[0])
    back = across.stride - 1 - k
    return before + back // across.stride, back % across.stride


def _at(tree, index):
    """Steps by their places, ``[L, *batch]``; a leaf that all members share follows the first of them."""

    def of_leaf(leaf):
        if leaf.shape[1 : index.ndim] != index.shape[1:]:
            return leaf[index.reshape(len(index), -1)[:, 0]]
        return jnp.take_along_axis(leaf, index.reshape(index.shape + (1,) * (leaf.ndim - index.ndim)), axis=0)

    return jax.tree.map(of_leaf, tree)


def _no_steps(batch, h):
    """A count of each member, or one for all where a leaf of the state has no batch axes."""
    each = all(jnp.shape(leaf)[: len(batch)] == batch for leaf in jax.tree.leaves(h))
    return jnp.zeros(batch if each else (), jnp.int32)


def _copies(tree, N):
    return jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (N, *jnp.shape(leaf))), tree)


def _steps_of(tree, N):
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((N, *leaf.shape[1:]), leaf.dtype), tree)


def _end_to_end(a, b):
    return jax.tree.map(lambda *leaves: jnp.concatenate(leaves), a, b)
