"""Sparse n-step approximation: the sensitivity, kept only where n steps of the recursion reach.

a_t = S_n ∘ (b_t + c_t a_{t-1})                  S_n: where a_n can be other than zero
∂F/∂θ_h ≈ 1/T Σ_t (∂L_t/∂ŷ_t) (∂ŷ_t/∂h_t) a_t    ready at every step, no reverse pass
"""

import functools
from typing import Any, Literal, NamedTuple

from jaxbptt._errors import arguments
from jaxbptt._factory import factory
from jaxbptt.estimators import _blocks, _forward, _inputs, _pattern
from jaxbptt.types import Array, GradientEstimator, Loss, Model


class SnApState(NamedTuple):
    """``h``: the state; ``a``: the blocks of dh/dθ_h kept, ``[*batch, G, r, m]``. ``None``: before the first step.

    >>> SnApState(h=None, a=None).a is None
    True
    """

    h: Any
    a: tuple[Array, ...] | None


@_inputs.by_shape
@factory
def snap(
    model: Model, loss: Loss, *, order: int, inputs: Any = None, reduction: Literal["mean", "sum"] = "mean"
) -> GradientEstimator:
    """SnAp-n: RTRL in which θ_j keeps its influence on the units that it reaches within n steps.

    Biased, without a general bound; exact where n steps reach all that is ever reached: ``order=1`` for a diagonal
    recurrence, a large order for any. ∂F/∂θ_o is exact. Each parameter is kept with r rows of the state: memory r·P a
    member, time O(r²·P) a step and the pullbacks of c_t, none of it growing with T. In a dense network ``order=1``
    keeps a unit's own weights, and 2 keeps all. It pays where weights are `jaxbptt.cells.sparse`. In a stack a layer's
    parameters reach the layers above at once, in ``order=1`` too.

    Args:
        model: f and g.
        loss: L.
        order: n, at least 1.
        inputs: one input x_t of one member, or its shapes, to make the state with; by default ``[d]`` of W_x. Where
            nothing says it the first `update` makes the state.
        reduction: ``"mean"`` over the chunk's time and batch, or ``"sum"``.

    Returns:
        A `GradientEstimator`. ``init(theta, h_0=None)`` gives a `SnApState`; the info is a `NoInfo`.

    Raises:
        TypeError, ValueError: as `jaxbptt.objective` does; for an order below 1.

    Notes:
        The pattern is found from f's derivatives at 32 random points, once for each cell and shapes. What is zero at
        all of them counts as always zero.

    Source: Menick et al. (2021), A practical sparse approximation for real time recurrent learning.

    >>> import jax, jax.numpy as jnp, jaxbptt as jb
    >>> model = jb.rnn(jb.cells.gru(), jb.readouts.linear())
    >>> theta = model.init(jax.random.key(0), input_size=3, hidden_size=5, output_size=2)
    >>> estimator = snap(model, jb.losses.l2_loss, order=1)
    >>> state = estimator.init(theta, jnp.zeros((4, 5)))
    >>> estimate, state = estimator.update(theta, state, jnp.ones((7, 4, 3)), jnp.ones((7, 4, 2)))
    >>> estimate.grads.h.W_x.shape, [block.shape for block in state.a]  # five units, each with its weights
    ((15, 3), [(4, 5, 1, 30)])
    """
    arguments.count("order", order)
    return _forward.estimator(
        _forward.Rule(model, loss, reduction, SnApState, functools.partial(_influence, order, inputs))
    )


def _influence(order, inputs, cell, theta_h, x_t, h_tm1, a):
    x_t = _inputs.example(cell, theta_h, inputs) if x_t is None else x_t
    return None if x_t is None else _blocks.influence(_pattern.pattern(cell, theta_h, x_t, h_tm1, order), theta_h)
