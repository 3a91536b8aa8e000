"""Unbiased online recurrent optimization: a_t as an outer product of two vectors, right on average.

a_t ≈ h̃_t ⊗ θ̃_t        E[h̃_t ⊗ θ̃_t] = dh_t/dθ_h
"""

from typing import Any, Literal, NamedTuple

import jax.numpy as jnp

from jaxbptt._errors import arguments
from jaxbptt._factory import factory
from jaxbptt.estimators import _errors, _forward, _rank_one
from jaxbptt.estimators._rank_one import RankOne
from jaxbptt.types import Array, GradientEstimator, Loss, Model


class UOROState(NamedTuple):
    """``h``: the state; ``a``: dh/dθ_h, a `RankOne`. ``None``: before the first step.

    >>> UOROState(h=None, a=None)
    UOROState(h=None, a=None)
    """

    h: Any
    a: RankOne | None


class UOROInfo(NamedTuple):
    """``a_norm [*batch, samples]``: ‖h̃_T‖ ‖θ̃_T‖. The noise of the next gradient grows with it.

    >>> UOROInfo(a_norm=jnp.ones((4, 1))).a_norm.shape
    (4, 1)
    """

    a_norm: Array


@factory
def uoro(
    model: Model,
    loss: Loss,
    *,
    samples: int = 1,
    epsilon0: float = 1e-7,
    epsilon1: float = 1e-7,
    reduction: Literal["mean", "sum"] = "mean",
) -> GradientEstimator:
    """Unbiased online recurrent optimization, ``a_t ≈ h̃_t ⊗ θ̃_t`` carried forward.

    Unbiased, in a stream too, and noisy: the standard deviation is often several times the gradient. It falls as
    1/√samples, or faster. The newest step is exact, as published: ``(∂L_t/∂h_t) (b_t + c_t a_{t-1})``. Of
    `cells.stacked` it estimates the whole stack's a_t. Time a step: a forward step, two pullbacks and a derivative
    along h̃. Memory: N + P numbers a member and sample. Neither grows with T.

    Args:
        model: f and g.
        loss: L.
        samples: estimates to average. They share each draw, with signs of a Hadamard matrix over the units. Measured
            with 4 of them, the variance is 4 to 13 times lower.
        epsilon0: ε_0, above 0. It keeps ρ_0 finite and biases nothing.
        epsilon1: ε_1, the same of ρ_1.
        reduction: ``"mean"`` over the chunk's time and batch, or ``"sum"``.

    Returns:
        A `GradientEstimator`. ``init(theta, h_0=None)`` gives a `UOROState` with a_0 = 0: h_0 does not depend on θ_h.
        ``update`` needs a key, another one for each chunk. The same arguments give the same object.

    Raises:
        TypeError, ValueError: as `jaxbptt.objective` does; for no key.

    Source: Tallec and Ollivier (2018), Unbiased online recurrent optimization.

    >>> import jax, jaxbptt as jb
    >>> model = jb.rnn(jb.cells.elman(), jb.readouts.linear())
    >>> theta = model.init(jax.random.key(0), input_size=3, hidden_size=5, output_size=2)
    >>> estimator = uoro(model, jb.losses.l2_loss)
    >>> state, key = estimator.init(theta, jnp.zeros((4, 5))), jax.random.key(1)
    >>> estimate, state = estimator.update(theta, state, jnp.ones((7, 4, 3)), jnp.ones((7, 4, 2)), key=key)
    >>> estimate.grads.h.W_x.shape, state.a.theta.W_x.shape
    ((5, 3), (4, 1, 5, 3))
    """
    arguments.count("samples", samples)
    _errors.positive(epsilon0=epsilon0, epsilon1=epsilon1)
    influence = _rank_one.influence(samples, epsilon0, epsilon1)
    return _forward.estimator(
        _forward.Rule(model, loss, reduction, UOROState, lambda *shapes: influence, _info, needs_key=True)
    )


def _info(a):
    return UOROInfo(jnp.linalg.norm(a.h, axis=-1) * _rank_one.norm(a.theta, a.h.dtype, a.h.ndim - 1))
