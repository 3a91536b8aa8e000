"""Real-time recurrent learning: the sum from left to right.

a_t = b_t + c_t a_{t-1}                          the sensitivity dh_t/dθ_h, carried forward
∂F/∂θ_h = 1/T Σ_t (∂L_t/∂ŷ_t) (∂ŷ_t/∂h_t) a_t    ready at every step, no reverse pass
"""

import math
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from jaxbptt import _batch, _real, _validate, jacobians, losses, readouts
from jaxbptt import _cotangents as cotangents
from jaxbptt._dtypes import wide, widest
from jaxbptt._factory import factory
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
    """Nothing to look at: what RTRL knows, it carries.

    >>> len(RTRLInfo())
    0
    """


@factory
def rtrl(model: Model, loss: Loss, *, reduction: Literal["mean", "sum"] = "mean") -> GradientEstimator:
    """Real-time recurrent learning, ``a_t = b_t + c_t a_{t-1}`` carried forward.

    Exact, and exact in a stream: fed a sequence in chunks with θ frozen and ``reduction="sum"``, the gradients of the
    chunks add up to that of the whole. (With θ updated between chunks, a_t is stale to the order of the step size.)
    Memory N·P numbers for each member of the batch, none of it growing with T; time O(N²·P) a step and member.

    State and sensitivity handed on are those of the inputs as given: NaN in these after a member's last step that
    counts is in them, as for `bptt`, and the sweep is then run twice (under ``jax.vmap`` always).

    Members of the batch must not influence one another: f is differentiated for one at a time. A floating-point leaf of
    the state has the batch axes; one of `xs` that all members share, ``[T, …]``, must not go on with the sizes of the
    batch by chance, or it is taken for one of theirs.

    Args:
        model: f and g.
        loss: L.
        reduction: ``"mean"`` over the chunk's time and batch, or ``"sum"``.

    Returns:
        A `GradientEstimator`. ``init(theta, h_0=None)`` gives an `RTRLState` with a_0 = 0 (h_0 does not depend on θ_h);
        ``update`` needs no key. The same arguments give the same object.

    Raises:
        TypeError, ValueError: as `jaxbptt.objective` does.

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
    _validate.average_loss(model, loss, reduction)
    cell, readout = model.cell, model.readout

    def init(theta, h_0=None, *, key=None):
        _validate.theta(theta)
        if h_0 is None:
            return RTRLState(None, None)
        _validate.state_tree(cell, theta.h, h_0)
        batch = _batch.separate(cell, theta.h, h_0)
        return RTRLState(h_0, _first_sensitivity(cell, theta.h, h_0, batch, learned=False))

    def update(theta, state, xs, ys, *, mask=None, lengths=None, key=None):
        _validate.theta(theta)
        _validate.estimator_state(state, RTRLState)
        _validate.sequences(xs, ys, mask)
        h_0 = _batch.initial_state(model, theta, xs, state.h)
        given, xs = xs, _batch.finite_after_last(xs, mask)
        h_0 = _validate.recursion(cell, theta.h, xs, h_0)
        begun, h_0 = h_0, _batch.read_without_nan(h_0, mask)
        batch = _batch.separate(cell, theta.h, h_0)
        one_output = jax.eval_shape(lambda h_0: jax.tree.map(lambda h: h[None], cell.output(h_0)), h_0)
        _validate.readout_fits(readout, theta.o, one_output)
        one_y_hat = jax.eval_shape(
            lambda theta_o, hs: readouts.apply_over_time(readout, theta_o, hs), theta.o, one_output
        )
        L_dtype = _validate.loss_fits(loss, one_y_hat, ys, mask, batch)
        if state.a is None:
            a_0 = _first_sensitivity(cell, theta.h, h_0, batch, learned=state.h is None)
        else:
            zero = jax.eval_shape(lambda h_0: _first_sensitivity(cell, theta.h, h_0, batch, learned=False), h_0)
            a_0 = _validate.sensitivity(state.a, zero.shape)
        theta_h, unflatten_theta_h = _real.flatten(theta.h)

        def step_loss(theta_o, h_t, y_t, mask_t):
            y_hat_t = readout.apply(theta_o, cell.output(h_t))
            one_step = jax.tree.map(lambda leaf: jnp.expand_dims(leaf, 0), (y_hat_t, y_t, mask_t))
            return losses.over_time(loss, *one_step, reduction="sum")

        def step(carry, inputs):
            h_tm1, a_tm1, F, theta_h_bar, theta_o_bar = carry
            x_t, y_t, mask_t = inputs
            h_t = cell.apply(theta.h, x_t, h_tm1)
            b_t, c_t = _batch.over_members(
                lambda *step: jacobians.b_and_c(cell, theta.h, *step), batch, x_t, h_tm1, h_t
            )
            a_t = b_t.astype(a_tm1.dtype) + c_t.astype(a_tm1.dtype) @ a_tm1
            L_t, pull = cotangents.pullback(lambda theta_o, h_t: step_loss(theta_o, h_t, y_t, mask_t), theta.o, h_t)
            theta_o_bar_t, h_bar_t = pull(jnp.ones_like(L_t))  # (∂L_t/∂ŷ_t) (∂ŷ_t/∂θ_o) and (∂L_t/∂ŷ_t) (∂ŷ_t/∂h_t)
            h_bar_t = _batch.over_members(_real.gradient_vector, batch, h_bar_t).astype(a_t.dtype)
            # An a_t that has left the numbers in steps that nothing reads: 0 · inf would be NaN.
            unread = (h_bar_t == 0)[..., None] & ~jnp.isfinite(a_t)
            counted = jnp.where(unread, jnp.zeros_like(a_t), a_t)
            theta_h_bar = theta_h_bar + jnp.tensordot(h_bar_t, counted, h_bar_t.ndim)
            theta_o_bar = jax.tree.map(lambda sum, term: sum + term.astype(sum.dtype), theta_o_bar, theta_o_bar_t)
            return (h_t, a_t, F + L_t.astype(F.dtype), theta_h_bar, theta_o_bar), None

        nothing = (
            jnp.zeros((), wide(L_dtype)),
            jnp.zeros(theta_h.shape, a_0.dtype),
            jax.tree.map(lambda leaf: leaf.astype(wide(leaf.dtype)), cotangents.zeros(theta.o)),
        )

        def sweep(xs, h_0):
            return lax.scan(step, (h_0, a_0, *nothing), (xs, ys, mask))[0]

        h_T, a_T, *sums = sweep(xs, h_0)
        h_T, a_T = _batch.for_the_next_chunk(lambda *raw: sweep(*raw)[:2], (h_T, a_T), (given, begun), (xs, h_0))
        if reduction == "mean":
            T = jax.tree.leaves(ys)[0].shape[0]
            steps = T * math.prod(batch) if mask is None else jnp.maximum(jnp.sum(mask), 1)
            sums = jax.tree.map(lambda leaf: leaf / jnp.asarray(steps).astype(leaf.dtype), sums)
        F, theta_h_bar, theta_o_bar = sums
        grads = Theta(
            h=_real.gradient(theta_h_bar, unflatten_theta_h),
            o=jax.tree.map(lambda sum, leaf: sum.astype(leaf.dtype), theta_o_bar, cotangents.zeros(theta.o)),
        )
        return Estimate(F.astype(L_dtype), grads, RTRLInfo()), RTRLState(h_T, a_T)

    return GradientEstimator(init, update)


def _first_sensitivity(cell, theta_h, h_0, batch, *, learned):
    """a_0 = dh_0/dθ_h, ``[*batch, N, P]``: zero, unless the model's initial state is where it starts and is learned.

    Half precision is carried in float32, as it is summed over time.
    """
    theta, unflatten = _real.flatten(theta_h)
    members = jax.eval_shape(
        lambda h: _batch.over_members(lambda h: _real.flatten(h)[0], batch, h), cotangents.differentiable(h_0)
    )
    dtype = wide(widest((members.dtype, theta.dtype)))
    shape = (*members.shape, theta.size)
    if not learned:
        return jnp.zeros(shape, dtype)
    member = jax.jacrev(lambda theta: _real.flatten(cell.initial_state(unflatten(theta), ()))[0])(theta)
    return jnp.broadcast_to(member.astype(dtype), shape)
