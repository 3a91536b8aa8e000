"""Kronecker-factored real-time recurrent learning: a_t as a vector times a matrix, right on average.

a_t ≈ u_t ⊗ A_t        E[u_t ⊗ A_t] = dh_t/dθ_h
"""

import functools
from typing import Any, Literal, NamedTuple

import jax.numpy as jnp

from jaxbptt._errors import arguments
from jaxbptt._factory import factory
from jaxbptt.estimators import _errors, _forward, _kronecker
from jaxbptt.estimators._kronecker import Kronecker
from jaxbptt.types import Array, GradientEstimator, Loss, Model


class KFRTRLState(NamedTuple):
    """``h``: the state; ``a``: dh/dθ_h, a `Kronecker`. ``None``: before the first step.

    >>> KFRTRLState(h=None, a=None)
    KFRTRLState(h=None, a=None)
    """

    h: Any
    a: Kronecker | None


class KFRTRLInfo(NamedTuple):
    """``a_norm [*batch, samples]``: ‖u_T‖ ‖A_T‖. The noise of the next gradient grows with it.

    >>> KFRTRLInfo(a_norm=jnp.ones((4, 1))).a_norm.shape
    (4, 1)
    """

    a_norm: Array


@factory
def kf_rtrl(
    model: Model, loss: Loss, *, samples: int = 1, reduction: Literal["mean", "sum"] = "mean"
) -> GradientEstimator:
    """Kronecker-factored real-time recurrent learning, ``a_t ≈ u_t ⊗ A_t`` carried forward.

    Unbiased, in a stream too, and noisy, though less than `uoro`: two random signs a step, not n. The newest step is
    exact: ``(∂L_t/∂h_t) (b_t + c_t a_{t-1})``. For cells ``h_t = f(W_x x_t + W_h φ(h_{t-1}) + b)`` that show φ(h), such
    as `cells.linear` and `cells.elman`. `cells.stacked` and gated cells are refused. Time: O(n³) a step, member and
    sample. Memory: n² + n + d + 1 numbers. Neither grows with T.

    Args:
        model: f and g.
        loss: L.
        samples: independent estimates to average: the standard deviation falls as 1/√samples.
        reduction: ``"mean"`` over the chunk's time and batch, or ``"sum"``.

    Returns:
        A `GradientEstimator`. ``init(theta, h_0=None)`` gives a `KFRTRLState` with a_0 = 0. ``update`` needs a key,
        another one for each chunk. The same arguments give the same object.

    Raises:
        NotImplementedError: for another cell, told by its parameters, state and inputs.
        TypeError, ValueError: as `jaxbptt.objective` does; for no key.

    Source: Mujika, Meier and Steger (2018), Approximating real-time recurrent learning with random Kronecker factors.

    >>> import jax, jaxbptt as jb
    >>> model = jb.rnn(jb.cells.elman(), jb.readouts.linear())
    >>> theta = model.init(jax.random.key(0), input_size=3, hidden_size=5, output_size=2)
    >>> estimator = kf_rtrl(model, jb.losses.l2_loss)
    >>> state, key = estimator.init(theta, jnp.zeros((4, 5))), jax.random.key(1)
    >>> estimate, state = estimator.update(theta, state, jnp.ones((7, 4, 3)), jnp.ones((7, 4, 2)), key=key)
    >>> estimate.grads.h.W_x.shape, state.a.A.shape
    ((5, 3), (4, 1, 5, 5))
    """
    arguments.count("samples", samples)
    influence = functools.partial(_influence, samples)
    return _forward.estimator(_forward.Rule(model, loss, reduction, KFRTRLState, influence, _info, needs_key=True))


def _influence(samples, cell, theta_h, x_t, h_tm1, a):
    _errors.one_product(theta_h, x_t, h_tm1)
    return _kronecker.influence(samples, theta_h)


def _info(a):
    return KFRTRLInfo(jnp.linalg.norm(a.u, axis=-1) * jnp.linalg.norm(a.A, axis=(-2, -1)))
