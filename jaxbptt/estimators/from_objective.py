"""Any differentiable objective as an estimator: ``jax.value_and_grad``, of a model of ours or of anything else."""

import inspect
from collections.abc import Callable
from typing import NamedTuple

import jax

from jaxbptt._errors import arguments
from jaxbptt._factory import factory
from jaxbptt.estimators import _errors
from jaxbptt.types import Estimate, GradientEstimator

_KEYWORDS = ("mask", "lengths", "key")


class ObjectiveState(NamedTuple):
    """``h``: where the next chunk starts (``None``: the initial state that F itself takes).

    >>> ObjectiveState(h=None)
    ObjectiveState(h=None)
    """

    h: object


class ObjectiveInfo(NamedTuple):
    """Nothing to look at: F returned its value alone.

    >>> len(ObjectiveInfo())
    0
    """


@factory
def from_objective(F: Callable) -> GradientEstimator:
    """``jax.value_and_grad(F)`` as an estimator, for an F of your own over any tree of parameters.

    As exact as F's own adjoint. F may return ``(value, aux)``. If aux has an attribute ``h_T``, the next `update`
    starts from that state as from data: a stream is truncated, as in `bptt`. Otherwise each update starts from h_0
    anew, and ``streaming=True`` is an error. To train with F split over devices, give `jaxbptt.training`
    ``from_objective(jb.data_parallel(F))``.

    Args:
        F: ``(theta, xs, ys, h_0, *, mask, lengths, key) -> scalar`` or ``(scalar, aux)``. It may lack any keyword. A
            mask or lengths that it lacks are an error; a key goes only to an F that takes one.

    Returns:
        A `GradientEstimator`; the info of its estimate is aux, or an `ObjectiveInfo`. Needs a key if F does.

    Raises:
        TypeError: when F can't be called so; when traced, for what F does not take or may not return.

    >>> import jax.numpy as jnp
    >>> def F(theta, xs, ys, h_0=None, *, key):  # no cell of ours, and dropout
    ...     kept = jax.random.bernoulli(key, 0.5, xs.shape)
    ...     return jnp.mean((jnp.where(kept, 2 * xs, 0) @ theta["W"] - ys) ** 2)
    >>> estimator, theta = from_objective(F), {"W": jnp.ones((3, 2))}
    >>> key, state = jax.random.key(0), estimator.init(theta)
    >>> estimate, _ = estimator.update(theta, state, jnp.ones((7, 4, 3)), jnp.ones((7, 4, 2)), key=key)
    >>> estimate.grads["W"].shape
    (3, 2)
    """
    taken = _keywords(F)
    arguments.called_with("F", F, "theta", "xs", "ys", "h_0", keywords=taken)

    def init(theta, h_0=None, *, key=None):
        return ObjectiveState(h_0)

    def update(theta, state, xs, ys, *, mask=None, lengths=None, key=None):
        _errors.estimator_state(state, ObjectiveState)
        given = {"mask": mask, "lengths": lengths, "key": key if "key" in taken else None}
        given = {name: value for name, value in given.items() if value is not None}
        _errors.taken_by_objective(given, taken)

        def value_and_aux(theta):
            return _errors.value_and_aux(F(theta, xs, ys, state.h, **given), ObjectiveInfo())

        (loss, aux), grads = jax.value_and_grad(value_and_aux, has_aux=True)(theta)
        return Estimate(loss, grads, aux), ObjectiveState(aux.h_T) if hasattr(aux, "h_T") else state

    return GradientEstimator(init, update)


def _keywords(F):
    """Which of mask, lengths and key F takes."""
    try:
        parameters = inspect.signature(F).parameters
    except (TypeError, ValueError):  # no function, or a builtin, which doesn't say
        return ()
    takes_all = any(one.kind is one.VAR_KEYWORD for one in parameters.values())
    return tuple(name for name in _KEYWORDS if takes_all or name in parameters)
