"""Real-time recurrent learning: the sum from left to right.

a_t = b_t + c_t a_{t-1}                          the sensitivity dh_t/dθ_h, carried forward
∂F/∂θ_h = 1/T Σ_t (∂L_t/∂ŷ_t) (∂ŷ_t/∂h_t) a_t    ready at every step, no reverse pass
"""

import functools
from typing import Any, Literal, NamedTuple

import jax
import numpy as np

from jaxbptt._factory import factory
from jaxbptt.estimators import _blocks, _forward, _inputs, _pattern
from jaxbptt.types import Array, GradientEstimator, Loss, Model


class RTRLState(NamedTuple):
    """``h``: the state; ``a``: the blocks of dh/dθ_h, ``[*batch, G, r, m]``. ``None``: before the first step.

    >>> RTRLState(h=None, a=None).a is None
    True
    """

    h: Any
    a: tuple[Array, ...] | None


@_inputs.by_shape
@factory
def rtrl(
    model: Model, loss: Loss, *, inputs: Any = None, reduction: Literal["mean", "sum"] = "mean"
) -> GradientEstimator:
    """Real-time recurrent learning, ``a_t = b_t + c_t a_{t-1}`` carried forward.

    Exact, in a stream too: with θ frozen and ``reduction="sum"``, the gradients of the chunks add up to that of the
    whole. With θ updated between chunks, a_t is stale to the order of the step size. What can never be other than zero
    in a_t is neither stored nor multiplied: a parameter that reaches r of the N numbers of the state costs r numbers a
    member and O(r²) a step. So |θ| both for a diagonal recurrence, N·|θ| and N²·|θ| for a dense one, as is a stack.
    None of it grows with T.

    Args:
        model: f and g.
        loss: L.
        inputs: one input x_t of one member, or its shapes, to make the state with; by default ``[d]`` of W_x. Where
            nothing says it, a state made with h_0 is dense.
        reduction: ``"mean"`` over the chunk's time and batch, or ``"sum"``.

    Returns:
        A `GradientEstimator`. ``init(theta, h_0=None)`` gives an `RTRLState` with a_0 = 0: h_0 does not depend on θ_h.
        ``update`` needs no key. The same arguments give the same object.

    Raises:
        TypeError, ValueError: as `jaxbptt.objective` does.

    Notes:
        Where a_t is zero is found from f's derivatives at 32 random points, once for each cell and shapes
        (`jaxbptt.estimators.snap`).

        Members of the batch must not influence one another: f is differentiated for one at a time. Every floating-point
        leaf of the state has the batch axes. A leaf of `xs` that all members share is ``[T, …]``. Its next sizes must
        not equal the batch's by chance: it would count as the members' own.

    Source: Williams and Zipser (1989), A learning algorithm for continually running fully recurrent neural networks.

    >>> import jax, jax.numpy as jnp, jaxbptt as jb
    >>> model = jb.rnn(jb.cells.elman(), jb.readouts.linear())
    >>> theta = model.init(jax.random.key(0), input_size=3, hidden_size=5, output_size=2)
    >>> estimator = rtrl(model, jb.losses.l2_loss)
    >>> state = estimator.init(theta)
    >>> estimate, state = estimator.update(theta, state, jnp.ones((7, 4, 3)), jnp.ones((7, 4, 2)))
    >>> estimate.grads.h.W_x.shape, [block.shape for block in state.a]  # one, of all units and 5·3 + 5·5 + 5 parameters
    ((5, 3), [(4, 1, 5, 45)])
    """
    influence = functools.partial(_influence, inputs)
    return _forward.estimator(_forward.Rule(model, loss, reduction, RTRLState, influence))


def _influence(inputs, cell, theta_h, x_t, h_tm1, a):
    """Dense in `init`, where no input is known to find the pattern with."""
    x_t = _inputs.example(cell, theta_h, inputs) if x_t is None else x_t
    found = _pattern.dense(theta_h, h_tm1) if x_t is None else _pattern.pattern(cell, theta_h, x_t, h_tm1, None)
    if a is not None and _blocks.stored(found) != tuple(map(np.shape, jax.tree.leaves(a))):
        found = _pattern.dense(theta_h, h_tm1)
    return _blocks.influence(found, theta_h)
