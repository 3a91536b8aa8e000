"""E-prop: what a unit does to itself is traced, what it does to others is not.

a_t = b_t + d_t a_{t-1}                          d_t: c_t without the paths through W_h
∂F/∂θ_h ≈ 1/T Σ_t (∂L_t/∂ŷ_t) (∂ŷ_t/∂h_t) a_t    ready at every step, no reverse pass
"""

import functools
from typing import Any, Literal

from jaxbptt._errors import arguments
from jaxbptt._factory import factory
from jaxbptt.estimators import _forward, _inputs, _local
from jaxbptt.types import GradientEstimator, Loss, Model


@_inputs.by_shape
@factory
def eprop(
    model: Model,
    loss: Loss,
    *,
    feedback: Literal["symmetric", "random"] = "symmetric",
    inputs: Any = None,
    reduction: Literal["mean", "sum"] = "mean",
) -> GradientEstimator:
    """E-prop, ``a_t = b_t + d_t a_{t-1}``, where d_t is c_t without the paths through the recurrent weights W_h.

    Biased, without a bound; exact for one step, and where W_h = 0. ∂F/∂θ_o is exact. d_t couples the few states of one
    unit: the leak of `cells.leaky`, the gates of `cells.lstm` and `cells.gru`, nothing in `cells.elman`. Memory and
    time: O(|θ|) a step and member, and none in T. `cells.stacked` and `cells.sparse` are refused.

    Args:
        model: f and g; f with W_h beside a bias, as the cells above.
        loss: L.
        feedback: the error ∂L_t/∂ŷ_t goes back by the readout's own weights, ``"symmetric"``; or by a ``"random"``
            matrix with entries N(0, 1/n), drawn by ``init`` and kept in the state.
        inputs: one input x_t of one member, or its shapes, to make the state with; by default ``[d]`` of W_x.
        reduction: ``"mean"`` over the chunk's time and batch, or ``"sum"``.

    Returns:
        A `GradientEstimator`. ``init(theta, h_0=None)`` gives a `LocalState`, and needs a key for random feedback;
        ``update`` needs none. The same arguments give the same object.

    Raises:
        NotImplementedError: for another cell, told by its parameters, state and inputs.
        TypeError, ValueError: as `jaxbptt.objective` does; for no key.

    Source: Bellec et al. (2020), A solution to the learning dilemma for recurrent networks of spiking neurons.

    >>> import jax, jax.numpy as jnp, jaxbptt as jb
    >>> model = jb.rnn(jb.cells.lstm(), jb.readouts.linear())
    >>> theta = model.init(jax.random.key(0), input_size=3, hidden_size=5, output_size=2)
    >>> estimator = eprop(model, jb.losses.l2_loss, feedback="random")
    >>> state = estimator.init(theta, key=jax.random.key(1))
    >>> estimate, state = estimator.update(theta, state, jnp.ones((7, 4, 3)), jnp.ones((7, 4, 2)))
    >>> estimate.grads.h.W_x.shape, state.feedback.shape
    ((20, 3), (2, 5))
    """
    arguments.one_of("feedback", feedback, ("symmetric", "random"), "a matrix of your own goes into the state")
    influence = functools.partial(_local.influence, "eprop", True, inputs)
    rule = _forward.Rule(model, loss, reduction, _local.LocalState, influence)
    return _local.estimator(rule, feedback)
