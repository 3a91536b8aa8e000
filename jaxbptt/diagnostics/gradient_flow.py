"""Where a gradient goes: ∂F/∂h_t along time, and how much of ∂F/∂θ_h comes from each lag, in one reverse pass.

L_s reaches h_t through s - t steps. One cotangent for each lag obeys the recursion of `adjoints.full`:

 1. With Δ_t[k] = ∂L_{t+k}/∂h_t:     Δ_t[0] = ∂L_t/∂h_t directly,     Δ_t[k] = c_{t+1}ᵀ Δ_{t+1}[k-1].
 2. One more row gathers all lags ≥ K, so that nothing is lost: Δ_t[K] = c_{t+1}ᵀ (Δ_{t+1}[K-1] + Δ_{t+1}[K]).
 3. Their sum is delta_t, so ∂F/∂θ_h = 1/T Σ_k Σ_t b_tᵀ Δ_t[k]: lag k's part is Σ_t b_tᵀ Δ_t[k], one product
    with time as a batch axis (`jaxbptt.types.TimeSplit`).
"""

import functools
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from jaxbptt import _axes, losses, readouts
from jaxbptt._algebra import wide
from jaxbptt._errors import arguments
from jaxbptt._time import sweeps
from jaxbptt._time.loop import Weights
from jaxbptt._trees import cotangents, vectors
from jaxbptt.adjoints.autodiff import trajectory
from jaxbptt.cells._from_split import split_of
from jaxbptt.diagnostics import _members
from jaxbptt.estimators import _chunk
from jaxbptt.types import Array, Loss, Model, PyTree, Theta


class GradientFlow(NamedTuple):
    """Of a state that is a tree, norms are those of all its numbers together.

    Attributes:
        loss: F.
        delta_norms: ``[T + 1, *batch]``, ‖∂F/∂h_t‖ along all paths for t = 0 … T.
        lag_norms: ``[T, K, *batch]``, ‖∂L_s/∂h_{s-k}‖ at ``[s - 1, k]``, for every s: choose a row. 0 for k ≥ s.
        gradients: the tree of θ_h with a leading axis ``[K + 1]``: each lag's part of ∂F/∂θ_h, from L_s through θ_h at
            step s - k, for lags 0 … K-1. The last row is that of all lags ≥ K. Their sum is ∂F/∂θ_h.
        shares: the tree of θ_h with leaves ``[K + 1]``: ⟨G_k, G⟩/⟨G, G⟩ of each lag's part G_k in the whole G. Each
            leaf adds up to 1. A share is negative where that lag pulls the other way, and 0 where G is 0.

    >>> import jaxbptt as jb
    >>> model = jb.rnn(jb.cells.linear(), jb.readouts.identity())
    >>> theta = jb.Theta(jb.cells.LinearParams(W_x=jnp.ones((1, 1)), W_h=jnp.full((1, 1), 0.5)), ())
    >>> flow = gradient_flow(model, jb.losses.l2_loss, theta, jnp.ones((3, 1)), jnp.zeros((3, 1)))
    >>> flow.shares.W_h.sum().round(5).item(), flow.delta_norms.shape
    (1.0, (4,))
    """

    loss: Array
    delta_norms: Array
    lag_norms: Array
    gradients: PyTree
    shares: PyTree


def gradient_flow(
    model: Model,
    loss: Loss,
    theta: Theta,
    xs: PyTree,
    ys: PyTree,
    h_0: PyTree = None,
    *,
    mask: Array | None = None,
    lengths: Array | None = None,
    lags: int | None = None,
    reduction: Literal["mean", "sum"] = "mean",
) -> GradientFlow:
    """‖∂F/∂h_t‖ along time, ‖∂L_s/∂h_{s-k}‖ and the part of ∂F/∂θ_h by lag, from one reverse pass.

    Exact, by the cell's own pullback. No Jacobian is formed: the pass carries K + 1 cotangents of a state instead of
    one. Time: (K + 1) times a backward pass. Memory: 2·(K + 1)·T cotangents of z, and K + 1 gradients. A z has 1 number
    for each unit and sample of an Elman cell, 3 of a GRU, 4 of an LSTM. Sums and norms underflow as cotangents do:
    where float32 gives 0, the gradient is lost in training too.

    Args:
        model: f and g.
        loss: L.
        theta: `Theta`.
        xs: ``[T, *batch, d]``.
        ys: leaves ``[T, *batch, …]``.
        h_0: the model's initial state when ``None``; if θ_h makes it, that use counts as one at step 0.
        mask: ``[T, *batch]``, True (or a weight) where a step counts in F.
        lengths: ``[*batch]``, how many steps are real.
        lags: K; all T by default, which takes O(T²) time and as many states: give it where T is large.
        reduction: of F, ``"mean"`` or ``"sum"``. ``lag_norms`` are those of L_s itself either way.

    Returns:
        A `GradientFlow`.

    Raises:
        TypeError, ValueError: as `jaxbptt.objective` does, and for lags that are no positive integer.

    Source: the sum by lags is eq. 4 of Pascanu, Mikolov and Bengio (2013), On the difficulty of training recurrent
    neural networks.

    >>> import jaxbptt as jb
    >>> model = jb.rnn(jb.cells.linear(), jb.readouts.identity())
    >>> theta = jb.Theta(jb.cells.LinearParams(W_x=jnp.ones((1, 1)), W_h=jnp.full((1, 1), 0.5)), ())
    >>> ys, last = jnp.zeros((3, 1)), jnp.array([False, False, True])
    >>> flow = gradient_flow(model, jb.losses.l2_loss, theta, jnp.ones((3, 1)), ys, mask=last)  # F = ½ 1.75²
    >>> flow.delta_norms.tolist(), flow.lag_norms[-1].tolist()
    ([0.21875, 0.4375, 0.875, 1.75], [1.75, 0.875, 0.4375])
    >>> flow.gradients.W_h.ravel().tolist()  # 1.75 (1.5, 0.5 · 1, 0.25 · 0), and beyond lag 2 nothing
    [2.625, 0.875, 0.0, 0.0]
    """
    _chunk.check_factory(model, loss, reduction)
    _chunk.of_one_cell("gradient_flow", model)
    if lags is not None:
        arguments.count("lags", lags)
    given, pull_beginning = _chunk.begin(model, loss, theta, h_0, xs, ys, mask, lengths, None)
    cell, xs, h_0 = given.cell, given.xs, given.h_0
    T, split = jax.tree.leaves(given.ys)[0].shape[0], split_of(cell)
    K, batch = T if lags is None else min(lags, T), _axes.batch_shape(model.cell, theta.h, h_0, each=True)

    hs_tm1, hs = trajectory(cell, theta.h, xs, h_0)
    F, h_bars = direct(model, loss, theta, given, hs)
    steps = sweeps.Steps(xs, hs_tm1, hs, split.residuals(theta.h, split.project(theta.h, xs), hs_tm1, hs))
    by_rows = split._replace(step_vjp=functools.partial(_rows_vjp, split, batch))
    nothing = jax.tree.map(lambda leaf: jnp.zeros((K + 1, *leaf.shape), leaf.dtype), cotangents.zeros(h_0))
    passed, (z_bars, row_norms, delta_norms) = sweeps.reverse(
        by_rows, Weights(theta.h, None, None), steps, h_bars, nothing, plus=_later
    )

    # Before the sums over all steps, which half precision may not hold.
    count = losses.count(given.weights, T, given.batch, F.dtype) if reduction == "mean" else jnp.ones((), F.dtype)
    z_bars, passed = _over(count, (z_bars, passed))
    by_lag = jax.tree.map(lambda leaf: jnp.moveaxis(leaf, 1, 0), z_bars)
    parts = lax.map(lambda z_bars: split.param_vjp(theta.h, *steps, z_bars), by_lag)
    parts = cotangents.add(parts, jax.vmap(pull_beginning)(_later(cotangents.zeros(h_0), passed)))
    delta_norms = jnp.concatenate([_norms(batch, passed)[1][None], _over(count, delta_norms)])
    loss_of_all = losses.mean(F, count).astype(given.L_dtype)
    return GradientFlow(loss_of_all, delta_norms, _by_loss(row_norms, K), parts, jax.tree.map(_shares, parts))


def direct(model, loss, theta, given, hs):
    """Σ_s L_s in a dtype to sum in, and ∂L_s/∂h_s by the direct path for every s."""

    def total(hs):
        y_hats = readouts.over_time(model.readout, theta.o, jax.vmap(model.cell.output)(hs))
        return jnp.sum(losses.of_steps(loss, y_hats, given.ys, given.weights))

    F, pull = cotangents.pullback(total, hs)
    return F, pull(jnp.ones_like(F))[0]


def _later(h_bar_t, passed):
    """Δ_t: the rows k of step t + 1, passed on, are rows k + 1 of step t; the last two become one."""
    return jax.tree.map(
        lambda new, old: jnp.concatenate([new[None], old[:-2], (old[-2] + old[-1])[None]]), h_bar_t, passed
    )


def _rows_vjp(split, batch, theta_h, x_t, residuals_t, h_tm1, h_t, deltas_t):
    """c_{t+1}ᵀ Δ_{t+1}, row by row; beside its z_bar the norms of Δ_t."""
    z_bars_t, passed = jax.vmap(functools.partial(split.step_vjp, theta_h, x_t, residuals_t, h_tm1, h_t))(deltas_t)
    return (z_bars_t, *_norms(batch, deltas_t)), passed


def _norms(batch, h_bars):
    """The norms of each row, and of their sum."""

    def norm(h_bar):
        return _axes.over_members(lambda bar: _members.norm(vectors.gradient_vector(bar)), batch, h_bar)

    return jax.vmap(norm)(h_bars), norm(jax.tree.map(lambda rows: jnp.sum(rows, axis=0), h_bars))


def _over(count, tree):
    """A cotangent or norm of Σ_s L_s, made that of F."""
    return jax.tree.map(
        lambda leaf: losses.mean(leaf.astype(wide(leaf.dtype)), count.astype(wide(leaf.dtype))).astype(leaf.dtype), tree
    )


def _by_loss(row_norms, K):
    """‖∂L_{t+k}/∂h_t‖ at [t - 1, k] put at [s - 1, k] with s = t + k."""
    T = row_norms.shape[0]
    s, k = jnp.indices((T, K))
    found = row_norms[jnp.maximum(s - k, 0), k]
    exists = jnp.reshape(s >= k, (T, K) + (1,) * (found.ndim - 2))
    return jnp.where(exists, found, jnp.zeros_like(found))


def _shares(parts):
    """⟨G_k, G⟩/⟨G, G⟩, scaled first so that squares don't underflow."""
    whole = jnp.sum(parts, axis=0)
    largest = jnp.max(jnp.abs(whole), initial=0)
    scale = jnp.where(largest > 0, largest, jnp.ones_like(largest))
    along = jax.vmap(lambda part: jnp.real(jnp.vdot(whole / scale, part / scale)))(parts)
    square = jnp.sum(along)
    some = jnp.any(whole != 0)  # NaN too, which a maximum may lose
    return jnp.where(some, along / jnp.where(square == 0, jnp.ones_like(square), square), jnp.zeros_like(along))
