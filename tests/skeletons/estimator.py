"""An estimator to copy: real-time recurrent learning with c_t cut to its diagonal.

a_t = b_t + diag(c_t) ∘ a_{t-1}              stands for dh_t/dθ_h of the whole state, one matrix [N, P]
∂F/∂θ_h ≈ Σ_t (∂L_t/∂h_t) a_t                ready at every step, no reverse pass

To add one of yours:

* Copy this file to ``jaxbptt/estimators/``. From left to right it is an `Influence` (`init`, `push`, `pull`,
  `gradient`), written for one member of the batch, and a `Rule`. From right to left start from ``bptt.py``.
* What is carried goes into the state, what is only worth looking at into the info; each is a NamedTuple.
* Without h_0 the beginning is `initial_state(θ_h)`, which may be learned: `init` gets it as ``start``.
* The docstring says exact, or biased, or noisy, and by how much; and what it costs.
* Add a line to its kind in ``tests/cases.py``. An approximation has a test of where it is exact and that it differs
  elsewhere, as the tests beside this file show.
* Its names go into ``jaxbptt/estimators/__init__.py``, what it refuses into ``tests/errors/``.
"""

from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp

from jaxbptt._factory import factory
from jaxbptt._trees import vectors
from jaxbptt.estimators import _forward
from jaxbptt.types import Array, GradientEstimator, Loss, Model


class DiagonalRTRLState(NamedTuple):
    """What must be carried: ``h``, the state, and ``a [*batch, N, P]``. ``None``: before the first step."""

    h: Any
    a: Array | None


class DiagonalRTRLInfo(NamedTuple):
    """What is only worth looking at: ``a_norm``, the length of a_T."""

    a_norm: Array


@factory
def diagonal_rtrl(model: Model, loss: Loss, *, reduction: Literal["mean", "sum"] = "mean") -> GradientEstimator:
    """Real-time recurrent learning, ``a_t = b_t + diag(c_t) ∘ a_{t-1}`` carried forward.

    Biased, without a bound: what reaches h_t through other units of h_{t-1} is left out. Exact where c_t is diagonal,
    and in ∂F/∂θ_o. Memory N·P numbers a member, none of it in T.

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
    >>> estimate.grads.h.W_x.shape, state.a.shape  # P = 5·3 + 5·5 + 5
    ((5, 3), (4, 5, 45))
    """
    return _forward.estimator(_forward.Rule(model, loss, reduction, DiagonalRTRLState, _influence, _info))


def _info(a_T):
    return DiagonalRTRLInfo(jnp.sqrt(jnp.sum(a_T**2)))


def _influence(cell, theta_h, x_t, h_tm1, a):
    """Of these shapes: nothing here depends on them."""
    return _forward.Influence(_init, _push, _pull, vectors.gradient)


def _init(theta_h, h_0, start, key):
    """The sensitivity a_0 = dh_0/dθ_h: 0, or that of an initial state that is made of θ_h."""
    (theta, theta_of), (h, _) = vectors.flatten(theta_h), vectors.flatten(h_0)
    if start is None:
        return jnp.zeros((h.size, theta.size), theta.dtype)
    return jax.jacfwd(lambda theta: vectors.flatten(start(theta_of(theta)))[0])(theta)


def _push(cell, theta_h, x_t, h_tm1, h_t, a_tm1, key_t):
    (theta, theta_of), (h, h_of) = vectors.flatten(theta_h), vectors.flatten(h_tm1)

    def f(theta, h):
        return vectors.flatten(cell.apply(theta_of(theta), x_t, h_of(h)))[0]

    b_t, c_t = jax.jacfwd(f, (0, 1))(theta, h)
    return b_t + jnp.diagonal(c_t)[:, None] * a_tm1


def _pull(a_t, h_bar_t):
    return vectors.gradient_vector(h_bar_t) @ a_t
