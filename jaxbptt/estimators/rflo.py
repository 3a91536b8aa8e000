"""Random feedback local online learning: the trace of a rate unit forgets as the unit leaks.

a_t = b_t + (1 - α) a_{t-1}                      the leak is all that is kept of c_t
∂F/∂θ_h ≈ 1/T Σ_t (∂L_t/∂ŷ_t) B (∂z_t/∂h_t) a_t  ready at every step, no reverse pass
"""

import functools
from typing import Any, Literal

from jaxbptt._errors import arguments
from jaxbptt._factory import factory
from jaxbptt.estimators import _forward, _inputs, _local
from jaxbptt.types import GradientEstimator, Loss, Model


@_inputs.by_shape
@factory
def rflo(
    model: Model,
    loss: Loss,
    *,
    feedback: Literal["symmetric", "random"] = "symmetric",
    inputs: Any = None,
    reduction: Literal["mean", "sum"] = "mean",
) -> GradientEstimator:
    """Random feedback local online learning, ``a_t = b_t + (1 - α) ∘ a_{t-1}`` for rate units with a leak.

    Biased, without a bound; exact for one step, and where W_h = 0. ∂F/∂θ_o is exact. For `cells.leaky`; for
    `cells.elman`, which has no leak, a_t is b_t. On these it is `eprop`, which takes gated cells as well. Memory and
    time: O(|θ|) a step and member, and none in T. `cells.stacked` and `cells.sparse` are refused.

    Args:
        model: f and g; f with one state h, W_h [n, n] and a bias [n].
        loss: L.
        feedback: the error ∂L_t/∂ŷ_t goes back by the readout's own weights, ``"symmetric"``; or by a ``"random"``
            matrix with entries N(0, 1/n), as published, drawn by ``init`` and kept in the state.
        inputs: one input x_t of one member, or its shapes, to make the state with; by default ``[d]`` of W_x.
        reduction: ``"mean"`` over the chunk's time and batch, or ``"sum"``.

    Returns:
        A `GradientEstimator`. ``init(theta, h_0=None)`` gives a `LocalState`, and needs a key for random feedback;
        ``update`` needs none. The same arguments give the same object.

    Raises:
        NotImplementedError: for another cell, told by its parameters, state and inputs.
        TypeError, ValueError: as `jaxbptt.objective` does; for no key.

    Source: Murray (2019), Local online learning in recurrent networks with random feedback.

    >>> import jax, jax.numpy as jnp, jaxbptt as jb
    >>> model = jb.rnn(jb.cells.leaky(alpha=0.2), jb.readouts.linear())
    >>> theta = model.init(jax.random.key(0), input_size=3, hidden_size=5, output_size=2)
    >>> estimator = rflo(model, jb.losses.l2_loss)
    >>> state = estimator.init(theta, jnp.zeros((4, 5)))
    >>> estimate, state = estimator.update(theta, state, jnp.ones((7, 4, 3)), jnp.ones((7, 4, 2)))
    >>> [block.shape for block in state.a]  # five units, each with its 3 + 5 + 1 parameters
    [(4, 5, 1, 9)]
    """
    arguments.one_of("feedback", feedback, ("symmetric", "random"), "a matrix of your own goes into the state")
    influence = functools.partial(_local.influence, "rflo", False, inputs)
    rule = _forward.Rule(model, loss, reduction, _local.LocalState, influence)
    return _local.estimator(rule, feedback)
