"""Any differentiable objective as an estimator: ``jax.value_and_grad``, whole sequences at a time."""

from collections.abc import Callable
from typing import NamedTuple

import jax

from jaxbptt._errors import arguments, trees
from jaxbptt._factory import factory
from jaxbptt.estimators import _errors
from jaxbptt.types import Estimate, GradientEstimator


class ObjectiveState(NamedTuple):
    """``h``: where every chunk starts (``None``: the model's initial state). It does not move.

    >>> ObjectiveState(h=None)
    ObjectiveState(h=None)
    """

    h: object


class ObjectiveInfo(NamedTuple):
    """Nothing to look at.

    >>> len(ObjectiveInfo())
    0
    """


@factory
def from_objective(F: Callable) -> GradientEstimator:
    """``jax.value_and_grad(F)`` as an estimator, for whole sequences: each `update` starts from h_0 anew.

    As exact as F's own adjoint. What `jaxbptt.training` takes when F is split over devices:
    ``from_objective(jb.data_parallel(F))``. Not for ``streaming=True``, as no state is carried on.

    Args:
        F: ``(theta, xs, ys, h_0, mask) -> scalar``, from `jaxbptt.objective` or `jaxbptt.data_parallel`.

    Returns:
        A `GradientEstimator`; ``update`` needs no key.

    Raises:
        TypeError: when F can't be called so.

    >>> import jax.numpy as jnp, jaxbptt as jb
    >>> model = jb.rnn(jb.cells.elman(), jb.readouts.linear())
    >>> theta = model.init(jax.random.key(0), input_size=3, hidden_size=5, output_size=2)
    >>> estimator = from_objective(jb.objective(model, jb.losses.l2_loss))
    >>> estimate, _ = estimator.update(theta, estimator.init(theta), jnp.ones((7, 4, 3)), jnp.ones((7, 4, 2)))
    >>> estimate.grads.h.W_h.shape
    (5, 5)
    """
    arguments.called_with("F", F, "theta", "xs", "ys", "h_0", "mask")

    def init(theta, h_0=None):
        trees.theta(theta)
        return ObjectiveState(h_0)

    def update(theta, state, xs, ys, mask=None, key=None):
        trees.theta(theta)
        _errors.estimator_state(state, ObjectiveState)
        loss, grads = jax.value_and_grad(F)(theta, xs, ys, state.h, mask)
        return Estimate(loss, grads, ObjectiveInfo()), state

    return GradientEstimator(init, update)
