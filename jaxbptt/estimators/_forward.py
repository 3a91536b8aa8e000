"""The sum from left to right. It carries an *influence*: what θ_h has done to the state so far.

a_t = push(a_{t-1})                              RTRL: a_t = b_t + c_t a_{t-1}
∂F/∂θ_h = Σ_t pull(a_t, ∂L_t/∂h_t)               ready at every step, no reverse pass

An estimator writes its influence for one member of the batch. What all of them share is here: the protocol of `init`
and `update`, the batch, the loop over time, the mean or sum.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxbptt import _axes, losses
from jaxbptt._algebra import wide
from jaxbptt._errors import trees
from jaxbptt._trees import cotangents
from jaxbptt._trees.cotangents import dtype_of
from jaxbptt.cells._from_split import split_of, take_step, with_time_axis
from jaxbptt.estimators import _chunk, _errors
from jaxbptt.objective import check
from jaxbptt.types import Estimate, GradientEstimator, Theta


def through_a_t(influence, cell, theta_h, x_t, h_tm1, h_t, a_tm1, a_t, h_bar_t):
    """(∂L_t/∂h_t) a_t."""
    return influence.pull(a_t, h_bar_t)


def through_the_newest_step(influence, cell, theta_h, x_t, h_tm1, h_t, a_tm1, a_t, h_bar_t):
    """(∂L_t/∂h_t) (b_t + c_t a_{t-1}) by one pullback: an approximation enters at a_{t-1} alone."""
    theta_bar, _, h_bar_tm1 = cell.vjp(theta_h, x_t, h_tm1, h_t, h_bar_t)
    return cotangents.accumulate(influence.pull(a_tm1, h_bar_tm1), theta_bar)


class Influence(NamedTuple):
    """The quantity an estimator carries forward, of one member of the batch, as four functions.

    Attributes:
        init: ``(theta_h, h_0, start, key) -> a_0``. ``start`` is h_0 as a function of θ_h, or ``None`` for an h_0 that
            does not depend on it: a_0 = 0.
        push: ``(cell, theta_h, x_t, h_tm1, h_t, a_tm1, key_t) -> a_t``.
        pull: ``(a_t, h_bar_t) -> `` the part of ∂F/∂θ_h that L_t contributes, in any form that adds up.
        gradient: ``(sum of parts, theta_h) -> theta_h_bar``, as ``jax.grad`` gives it.
        through: `through_a_t`; or `through_the_newest_step`, where the parts are cotangents of θ_h.
    """

    init: Callable
    push: Callable
    pull: Callable
    gradient: Callable
    through: Callable = through_a_t


def _no_info(a_T):
    return _chunk.NoInfo()


class Rule(NamedTuple):
    """What an estimator from left to right is.

    Attributes:
        model: f and g.
        loss: L.
        reduction: ``"mean"`` or ``"sum"``.
        state_type: the NamedTuple that is carried: ``h``, ``a`` and whatever else.
        influence: ``(cell, theta_h, x_t, h_tm1, a) -> Influence`` for arguments of these shapes, of one member. ``a``
            is ``None`` before the first step, ``x_t`` in ``init``, where no input is known; ``None``: wait for one.
        info: ``a_T -> `` the info of an estimate.
        needs_key: whether `update` draws random numbers.
    """

    model: Any
    loss: Any
    reduction: str
    state_type: Any
    influence: Callable
    info: Callable = _no_info
    needs_key: bool = False


class Sums(NamedTuple):
    """The sums over the steps so far, in dtypes to sum in."""

    F: jax.Array
    theta_h_bar: Any
    theta_o_bar: Any


def estimator(rule: Rule) -> GradientEstimator:
    """The estimator that follows a rule."""
    _chunk.check_factory(rule.model, rule.loss, rule.reduction)
    _chunk.of_one_cell("an online estimator", rule.model)
    return GradientEstimator(functools.partial(init, rule), functools.partial(update, rule))


def init(rule, theta, h_0=None, *, key=None):
    """The state before the first step. With h_0 its arrays are there, for a ``lax.scan`` over a stream."""
    if not isinstance(theta, Theta):
        trees.theta(theta)
    if h_0 is None:
        return rule.state_type(None, None)
    cell = rule.model.cell
    single = _axes.state_without_batch(cell, theta.h)
    if jax.tree.structure(h_0) != jax.tree.structure(single):
        _axes.state_tree(cell, theta.h, h_0)
    batch = _axes.batch_shape(cell, theta.h, h_0, each=True)
    influence = rule.influence(cell, theta.h, None, _of_a_member(h_0, batch), None)
    if influence is None:
        return rule.state_type(h_0, None)
    return rule.state_type(h_0, _begin(influence, theta.h, h_0, None, batch, None))


def update(rule, theta, state, xs, ys, *, mask=None, lengths=None, key=None, read=None):
    """``(Estimate, state)`` of one batch, or one chunk of a stream."""
    model, loss = rule.model, rule.loss
    if not isinstance(state, rule.state_type):
        _errors.estimator_state(state, rule.state_type)
    if rule.needs_key:
        _errors.given_key(key)
    given = check(model, loss, theta, xs, ys, state.h, mask, lengths, key)
    batch = _axes.batch_shape(model.cell, theta.h, given.h_0, each=True)
    shard = given.xs, given.h_0, given.ys, given.weights
    theta, pull_shard = cotangents.pullback(lambda theta: cotangents.alike(theta, shard)[0], theta)
    _, shard, a_tm1 = cotangents.alike(theta, shard, state.a)
    given = given._replace(xs=shard[0], h_0=shard[1], ys=shard[2], weights=shard[3])
    x_t, h_tm1 = _of_a_member(_axes.one_step(xs), batch), _of_a_member(given.h_0, batch)
    influence = rule.influence(model.cell, theta.h, x_t, h_tm1, _of_a_member(state.a, batch))
    start = None if state.h is not None else functools.partial(_start, model.cell)
    a_0 = _begin(influence, theta.h, given.h_0, start, batch, key)
    if state.a is not None:
        _errors.same_influence(a_tm1, a_0)
        a_0 = a_tm1
    read = functools.partial(_read, model, loss) if read is None else read
    h_T, a_T, (F, theta_h_bar, theta_o_bar) = sweep(influence, read, rule.reduction, theta, given, batch, a_0, key)
    # In a ``shard_map`` ∂F/∂θ is summed over the shards, as ``jax.grad`` does it.
    (grads,) = pull_shard(Theta(influence.gradient(theta_h_bar, theta.h), cotangents.narrow(theta_o_bar, theta.o)))
    return Estimate(F.astype(given.L_dtype), grads, rule.info(a_T)), state._replace(h=h_T, a=a_T)


def sweep(influence, read, reduction, theta, given, batch, a_0, key):
    """h_T, a_T, and the `Sums` over a chunk, or their mean."""

    def step(carry, inputs):
        h_tm1, a_tm1, sums = carry
        key_t, x_t, y_t, w_t = inputs
        _, h_t, _ = take_step(split, theta.h, x_t, h_tm1)
        a_t = _axes.over_members(push, batch, x_t, h_tm1, h_t, a_tm1, key_t)
        L_t, theta_o_bar_t, h_bar_t = read(theta.o, h_t, y_t, w_t)
        parts = _axes.over_members(pull, batch, x_t, h_tm1, h_t, a_tm1, a_t, h_bar_t)
        theta_h_bar_t = _over_the_batch(batch, parts)
        return (h_t, a_t, cotangents.accumulate(sums, Sums(L_t, theta_h_bar_t, theta_o_bar_t))), None

    split, push = split_of(given.cell), functools.partial(influence.push, given.cell, theta.h)
    pull = functools.partial(influence.through, influence, given.cell, theta.h)
    part = jax.eval_shape(influence.pull, *_of_a_member((a_0, cotangents.zeros(given.h_0)), batch))
    F, steps = jnp.zeros((), wide(given.L_dtype)), jax.tree.leaves(given.ys)[0].shape[0]
    nothing = Sums(F, cotangents.zeros(part, to_sum=True), cotangents.zeros(theta.o, to_sum=True))
    begun, _ = cotangents.alike((given.h_0, a_0, nothing), given.xs)
    # A loop of tiny programs is what a draw on a CPU is: the keys are made before the scan.
    keys = None if key is None else jax.vmap(lambda t: _keys(key, t, batch))(1 + jnp.arange(steps))
    (h_T, a_T, sums), _ = lax.scan(step, begun, (keys, given.xs, given.ys, given.weights))
    if reduction == "mean":
        sums = jax.tree.map(lambda total: losses.averaged(total, given.weights, steps, given.batch), sums)
    return h_T, a_T, sums


def _read(model, loss, theta_o, h_t, y_t, w_t):
    """L_t, (∂L_t/∂ŷ_t) (∂ŷ_t/∂θ_o) and (∂L_t/∂ŷ_t) (∂ŷ_t/∂h_t)."""
    of_a_step = jax.value_and_grad(functools.partial(_loss, model, loss), argnums=(0, 1), allow_int=True)
    L_t, bars = of_a_step(theta_o, h_t, *with_time_axis((y_t, w_t)))
    return L_t, *cotangents.from_jax(bars)


def _loss(model, loss, theta_o, h_t, ys, weights):
    y_hats = with_time_axis(model.readout.apply(theta_o, model.cell.output(h_t)))
    return jnp.sum(losses.of_steps(loss, y_hats, ys, weights))


def _begin(influence, theta_h, h_0, start, batch, key):
    def begin(h_0, key):
        return influence.init(theta_h, h_0, start, key)

    return _axes.over_members(begin, batch, h_0, _keys(key, 0, batch))


def _start(cell, theta_h):
    return cell.initial_state(theta_h, ())


def _keys(key, t, batch):
    """One key for step t of each member."""
    return None if key is None else jax.random.split(jax.random.fold_in(key, t), batch)


def _of_a_member(tree, batch):
    """The shapes of one member of the batch."""
    return jax.tree.map(functools.partial(_without, batch), tree)


def _without(batch, leaf):
    shape = np.shape(leaf)
    own = shape[len(batch) :] if shape[: len(batch)] == batch else shape
    return jax.ShapeDtypeStruct(own, dtype_of(leaf), weak_type=getattr(leaf, "weak_type", False))


def _over_the_batch(batch, parts):
    return jax.tree.map(lambda leaf: jnp.sum(leaf, axis=tuple(range(len(batch)))), parts)
