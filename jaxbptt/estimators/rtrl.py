"""Real-time recurrent learning: the sum from left to right.

a_t = b_t + c_t a_{t-1}                          the sensitivity dh_t/dθ_h, carried forward
∂F/∂θ_h = 1/T Σ_t (∂L_t/∂ŷ_t) (∂ŷ_t/∂h_t) a_t    ready at every step, no reverse pass
"""

import functools
import math
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxbptt import _axes, jacobians
from jaxbptt._algebra import wide
from jaxbptt._errors import trees
from jaxbptt._factory import factory
from jaxbptt._trees import cotangents, vectors
from jaxbptt.estimators import _chunk, _errors
from jaxbptt.estimators._forward import Influence, sweep
from jaxbptt.objective import check
from jaxbptt.types import Array, Estimate, GradientEstimator, Loss, Model, Theta


class RTRLState(NamedTuple):
    """``h``: the state; ``a [*batch, N, P]``: dh/dθ_h, real (`jaxbptt.jacobians`). ``None``: before the first step.

    >>> import jaxbptt as jb
    >>> theta_h = jb.cells.elman().init(jax.random.key(0), input_size=3, hidden_size=5)
    >>> state = RTRLState(h=jnp.zeros(5), a=jnp.zeros((5, sum(leaf.size for leaf in theta_h))))
    >>> state.a.shape  # 5·3 + 5·5 + 5 parameters
    (5, 45)
    """

    h: Any
    a: Array | None


class RTRLInfo(NamedTuple):
    """Nothing to look at: RTRL carries all it knows.

    >>> len(RTRLInfo())
    0
    """


@factory
def rtrl(model: Model, loss: Loss, *, reduction: Literal["mean", "sum"] = "mean") -> GradientEstimator:
    """Real-time recurrent learning, ``a_t = b_t + c_t a_{t-1}`` carried forward.

    Exact, in a stream too: with θ frozen and ``reduction="sum"``, the gradients of the chunks add up to that of the
    whole. With θ updated between chunks, a_t is stale to the order of the step size. Memory: N·P numbers for each
    member of the batch, none of it growing with T. Time: O(N²·P) a step and member.

    Args:
        model: f and g.
        loss: L.
        reduction: ``"mean"`` over the chunk's time and batch, or ``"sum"``.

    Returns:
        A `GradientEstimator`. ``init(theta, h_0=None)`` gives an `RTRLState` with a_0 = 0: h_0 does not depend on θ_h.
        ``update`` needs no key. The same arguments give the same object.

    Raises:
        TypeError, ValueError: as `jaxbptt.objective` does.

    Notes:
        Members of the batch must not influence one another: f is differentiated for one at a time. Every floating-point
        leaf of the state has the batch axes. A leaf of `xs` that all members share is ``[T, …]``. Its next sizes must
        not equal the batch's by chance: it would count as the members' own.

    Source: Williams and Zipser (1989), A learning algorithm for continually running fully recurrent neural networks.

    >>> import jaxbptt as jb
    >>> model = jb.rnn(jb.cells.elman(), jb.readouts.linear())
    >>> theta = model.init(jax.random.key(0), input_size=3, hidden_size=5, output_size=2)
    >>> estimator = rtrl(model, jb.losses.l2_loss)
    >>> state = estimator.init(theta)
    >>> estimate, state = estimator.update(theta, state, jnp.ones((7, 4, 3)), jnp.ones((7, 4, 2)))
    >>> estimate.grads.h.W_x.shape, state.a.shape  # P = 5·3 + 5·5 + 5
    ((5, 3), (4, 5, 45))
    """
    _chunk.check_factory(model, loss, reduction)
    return GradientEstimator(functools.partial(_init, model), functools.partial(_update, model, loss, reduction))


def _init(model, theta, h_0=None, *, key=None):
    if not isinstance(theta, Theta):
        trees.theta(theta)
    if h_0 is None:
        return RTRLState(None, None)
    single = _axes.state_without_batch(model.cell, theta.h)
    if jax.tree.structure(h_0) != jax.tree.structure(single):
        _axes.state_tree(model.cell, theta.h, h_0)
    batch = _axes.batch_shape(model.cell, theta.h, h_0, each=True)
    return RTRLState(h_0, _no_sensitivity(batch, theta.h, h_0))


def _update(model, loss, reduction, theta, state, xs, ys, *, mask=None, lengths=None, key=None):
    """``(Estimate, state)`` of one batch, or one chunk of a stream: see `jaxbptt.estimators.rtrl`."""
    if not isinstance(state, RTRLState):
        _errors.estimator_state(state, RTRLState)
    given = check(model, loss, theta, xs, ys, state.h, mask, lengths, key)
    batch = _axes.batch_shape(model.cell, theta.h, given.h_0, each=True)
    push, pull = functools.partial(_push, given.cell, batch), functools.partial(_pull, batch)
    influence = Influence(functools.partial(_no_sensitivity, batch), push, pull)
    zero = influence.init(theta.h, given.h_0)
    a_0 = zero if state.a is None else state.a
    if state.h is None:
        a_0 = _sensitivity_of_a_start(model.cell, theta.h, zero)
    elif np.shape(a_0) != zero.shape:
        _errors.sensitivity(a_0, zero.shape)
    nothing = jnp.zeros(zero.shape[-1:], zero.dtype)
    h_T, a_T, (F, theta_h_bar, theta_o_bar) = sweep(influence, model, loss, reduction, theta, given, a_0, nothing)
    grads = Theta(h=vectors.gradient(theta_h_bar, theta.h), o=cotangents.narrow(theta_o_bar, theta.o))
    return Estimate(F.astype(given.L_dtype), grads, RTRLInfo()), RTRLState(h_T, a_T)


def _push(cell, batch, theta_h, x_t, h_tm1, h_t, a_tm1):
    """a_t = b_t + c_t a_{t-1}."""
    b_and_c = functools.partial(jacobians.b_and_c, cell, theta_h)
    b_t, c_t = _axes.over_members(b_and_c, batch, x_t, h_tm1, h_t)
    return b_t.astype(a_tm1.dtype) + c_t.astype(a_tm1.dtype) @ a_tm1


def _pull(batch, a_t, h_bar_t):
    """(∂L_t/∂h_t) a_t, summed over members."""
    h_bar_t = _axes.over_members(vectors.gradient_vector, batch, h_bar_t).astype(a_t.dtype)
    # At a step that nothing reads, a_t may have overflowed: 0 · inf would be NaN.
    unread = (h_bar_t == 0)[..., None] & ~jnp.isfinite(a_t)
    return jnp.tensordot(h_bar_t, jnp.where(unread, jnp.zeros_like(a_t), a_t), h_bar_t.ndim)


def _no_sensitivity(batch, theta_h, h_0):
    """a_0 = 0, ``[*batch, N, P]``. Half precision is carried in float32, as it is summed over time."""
    (theta, _), (both, _) = vectors.flatten(theta_h), vectors.flatten((theta_h, h_0))
    N = (both.size - theta.size) // (math.prod(batch) or 1)
    return jnp.zeros((*batch, N, theta.size), wide(both.dtype))


def _sensitivity_of_a_start(cell, theta_h, zero):
    """a_0 = dh_0/dθ_h for the model's own initial state: 0 unless that is learned."""
    theta, unflatten = vectors.flatten(theta_h)
    member = jax.jacrev(lambda theta: vectors.flatten(cell.initial_state(unflatten(theta), ()))[0])(theta)
    return jnp.broadcast_to(member.astype(zero.dtype), zero.shape)
