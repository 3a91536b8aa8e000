"""An estimator to copy: real-time recurrent learning with c_t cut to its diagonal.

a_t = b_t + diag(c_t) ∘ a_{t-1}              stands for dh_t/dθ_h of the whole state, one matrix [N, P]
∂F/∂θ_h ≈ Σ_t (∂L_t/∂h_t) a_t                ready at every step, no reverse pass

To add one of yours:

* Copy this file to ``jaxbptt/estimators/``. From left to right it is an `Influence` (`init`, `push`, `pull`) under
  `_forward.sweep`; from right to left start from ``bptt.py``.
* What is carried goes into the state, what is only worth looking at into the info; each is a NamedTuple.
* `objective.check` checks the arguments. Without h_0 the beginning is `initial_state(θ_h)`, which may be learned.
* The docstring says exact, or biased, or noisy, and by how much; and what it costs.
* Add a line to `EXACT_ESTIMATORS` in ``tests/cases.py``, and to `ONLINE_ESTIMATORS` if it stays exact in chunks. An
  approximation has a test of where it is exact and that it differs elsewhere, as the tests beside this file show.
* Its names go into ``jaxbptt/estimators/__init__.py``, what it refuses into ``tests/errors/``.
"""

import functools
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp

from jaxbptt._errors import trees
from jaxbptt._factory import factory
from jaxbptt._trees import cotangents, vectors
from jaxbptt.estimators import _chunk, _errors
from jaxbptt.estimators._forward import Influence, sweep
from jaxbptt.objective import check
from jaxbptt.types import Array, Estimate, GradientEstimator, Loss, Model, Theta


class DiagonalRTRLState(NamedTuple):
    """What must be carried: ``h``, the state, and ``a [N, P]``. ``None``: before the first step."""

    h: Any
    a: Array | None


class DiagonalRTRLInfo(NamedTuple):
    """What is only worth looking at: ``a_norm``, the length of a_T."""

    a_norm: Array


@factory
def diagonal_rtrl(model: Model, loss: Loss, *, reduction: Literal["mean", "sum"] = "mean") -> GradientEstimator:
    """Real-time recurrent learning, ``a_t = b_t + diag(c_t) ∘ a_{t-1}`` carried forward.

    Biased, without a bound: what reaches h_t through other units of h_{t-1} is left out. Exact where c_t is diagonal,
    and in ∂F/∂θ_o. Memory N·P numbers, N those of the states of the whole batch, P those of θ_h; none of it in T.

    Args:
        model: f and g.
        loss: L.
        reduction: ``"mean"`` over the chunk's time and batch, or ``"sum"``.

    Returns:
        A `GradientEstimator`. The same arguments give the same object.

    Raises:
        TypeError, ValueError: as `jaxbptt.objective` does.

    Source: for an Elman network SnAp-1 of Menick et al. (2021), A practical sparse approximation for real time
    recurrent learning.

    >>> import jaxbptt as jb
    >>> model = jb.rnn(jb.cells.elman(), jb.readouts.linear())
    >>> theta = model.init(jax.random.key(0), input_size=3, hidden_size=5, output_size=2)
    >>> estimator = diagonal_rtrl(model, jb.losses.l2_loss)
    >>> estimate, state = estimator.update(theta, estimator.init(theta), jnp.ones((7, 4, 3)), jnp.ones((7, 4, 2)))
    >>> estimate.grads.h.W_x.shape, state.a.shape  # N = 4·5, P = 5·3 + 5·5 + 5
    ((5, 3), (20, 45))
    """
    _chunk.check_factory(model, loss, reduction)
    return GradientEstimator(_init, functools.partial(_update, model, loss, reduction))


def _init(theta, h_0=None, *, key=None):
    trees.theta(theta)
    return DiagonalRTRLState(h_0, None)


def _update(model, loss, reduction, theta, state, xs, ys, *, mask=None, lengths=None, key=None):
    _errors.estimator_state(state, DiagonalRTRLState)
    given = check(model, loss, theta, xs, ys, state.h, mask, lengths, key)
    influence = Influence(_zero, functools.partial(_push, given.cell), _pull)
    a_0 = influence.init(theta.h, given.h_0) if state.a is None else state.a
    if state.h is None:  # the beginning is `initial_state(θ_h)`, which may be learned
        a_0 = _of_a_start(given.cell, given.batch, theta.h)
    nothing = jnp.zeros(a_0.shape[-1], a_0.dtype)
    h_T, a_T, (F, theta_h_bar, theta_o_bar) = sweep(influence, model, loss, reduction, theta, given, a_0, nothing)
    grads = Theta(h=vectors.gradient(theta_h_bar, theta.h), o=cotangents.narrow(theta_o_bar, theta.o))
    info = DiagonalRTRLInfo(jnp.sqrt(jnp.sum(a_T**2)))
    return Estimate(F.astype(given.L_dtype), grads, info), DiagonalRTRLState(h_T, a_T)


def _zero(theta_h, h_0):
    """The sensitivity a_0 = dh_0/dθ_h = 0."""
    (theta, _), (h, _) = vectors.flatten(theta_h), vectors.flatten(h_0)
    return jnp.zeros((h.size, theta.size), theta.dtype)


def _of_a_start(cell, batch, theta_h):
    """The sensitivity of an initial state that is made of θ_h."""
    theta, theta_of = vectors.flatten(theta_h)
    return jax.jacfwd(lambda theta: vectors.flatten(cell.initial_state(theta_of(theta), batch))[0])(theta)


def _push(cell, theta_h, x_t, h_tm1, h_t, a_tm1):
    (theta, theta_of), (h, h_of) = vectors.flatten(theta_h), vectors.flatten(h_tm1)

    def f(theta, h):
        return vectors.flatten(cell.apply(theta_of(theta), x_t, h_of(h)))[0]

    b_t, c_t = jax.jacfwd(f, (0, 1))(theta, h)
    return b_t + jnp.diagonal(c_t)[:, None] * a_tm1


def _pull(a_t, h_bar_t):
    return vectors.gradient_vector(h_bar_t) @ a_t
