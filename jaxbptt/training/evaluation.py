"""Validation: F over data that is not learned from, and the best θ so far by it."""

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxbptt._algebra import to_sum
from jaxbptt._errors import arguments
from jaxbptt._factory import factory
from jaxbptt.objective import objective
from jaxbptt.training import _errors
from jaxbptt.training.metrics import IN_SUMMARY
from jaxbptt.training.observers import Observer
from jaxbptt.training.step import Batch
from jaxbptt.types import Loss, Model, PyTree, Theta


@factory
def evaluator(model: Model, loss: Loss) -> Callable[[Theta, Iterable], float]:
    """``evaluate(theta, batches) -> Σ L / Σ 1``: the mean of L over every step that counts, of all batches together.

    Unlike a mean of means it does not depend on how the data is cut into batches.

    Args:
        model: f and g.
        loss: ``(y_hat_t, y_t) -> [*batch]``; anything measured by step will do, such as whether the class is right.

    Returns:
        ``evaluate``. It takes an iterable of batches as `fit` takes them. Each begins with its own h_0 or the model's
        initial state: give a stream as one batch. One program for each shape of batch, compiled once: the same
        arguments give the same function. Waits for the result, a Python float.

    Raises:
        TypeError, ValueError: for what is not a model or a loss, and, from ``evaluate``, for batches without a step.

    >>> import jaxbptt as jb
    >>> model = jb.rnn(jb.cells.elman(), jb.readouts.linear())
    >>> theta = model.init(jax.random.key(0), input_size=3, hidden_size=5, output_size=2)
    >>> evaluate = evaluator(model, jb.losses.l2_loss)
    >>> evaluate(theta, [(jnp.zeros((7, 4, 3)), jnp.ones((7, 4, 2))), (jnp.zeros((9, 1, 3)), jnp.ones((9, 1, 2)))])
    1.0
    """

    def summed(y_hat_t, y_t):
        return to_sum(loss(y_hat_t, y_t))

    def one(y_hat_t, y_t):
        return jnp.ones(jnp.shape(loss(y_hat_t, y_t)), jnp.float32)

    F, steps = objective(model, summed, reduction="sum"), objective(model, one, reduction="sum")

    @jax.jit
    def sums(theta, batch):
        xs, ys, h_0, mask, lengths = batch
        return tuple(f(theta, xs, ys, h_0, mask=mask, lengths=lengths) for f in (F, steps))

    def evaluate(theta, batches):
        """The mean over all steps of `batches` that count, a float: see `jaxbptt.training.evaluator`."""
        _errors.evaluated(batches)
        found = [sums(theta, Batch(*_errors.batch(batch, Batch))) for batch in batches]
        total, counted = np.sum(np.array(found, np.float64).reshape(-1, 2), axis=0)
        return float(total / _errors.counted(counted))

    return evaluate


class Best(NamedTuple):
    """The best θ so far.

    Attributes:
        theta: it; where the run began until something was measured.
        loss: what it scored; infinite until then.
        step: after how many steps it was reached.
        seen: after how many steps was last measured; before the first time, where the run began, and -1 at its start.
        waited: how many measurements in a row were no better.

    >>> Best(theta=None, loss=np.array(0.5), step=np.array(40), seen=np.array(80), waited=np.array(1)).loss.item()
    0.5
    """

    theta: PyTree
    loss: np.ndarray
    step: np.ndarray
    seen: np.ndarray
    waited: np.ndarray


def early_stopping(
    evaluate: Callable[[PyTree], Any],
    *,
    every: int,
    patience: int | None = None,
    min_delta: float = 0.0,
    name: str = "validation_loss",
) -> Observer:
    """Measures θ every so many steps, keeps the best, and ends a run that no longer improves.

    Args:
        evaluate: ``theta -> `` a scalar, the lower the better, such as ``lambda theta: evaluator(model, loss)(theta,
            batches)``. NaN is no better than anything.
        every: measures at the first end of a dispatch at or after each multiple of so many steps.
        patience: how many measurements in a row may be no better before the run ends; ``None`` ends none.
        min_delta: by how much a measurement must be lower to be better.
        name: of the measurement among `Progress.scalars`; with several, each has its own.

    Returns:
        An `Observer` with the state `Best`: after the fit ``result.observed.theta`` is the best θ, and a checkpoint
        holds it.

    Raises:
        TypeError, ValueError: for bad counts, and, while it runs, for a measurement that is no scalar.

    Source: Prechelt (1998), Early stopping, but when?, section 2 (the criterion UP, by its best so far).

    >>> import jaxbptt as jb
    >>> model = jb.rnn(jb.cells.elman(), jb.readouts.linear())
    >>> theta = model.init(jax.random.key(0), input_size=3, hidden_size=5, output_size=2)
    >>> train, held_out = ((jnp.full((7, 4, 3), x), jnp.full((7, 4, 2), x)) for x in (1.0, -1.0))
    >>> evaluate = evaluator(model, jb.losses.l2_loss)
    >>> stopping = early_stopping(lambda theta: evaluate(theta, [held_out]), every=10, patience=2)
    >>> import optax
    >>> bptt = jb.estimators.bptt(model, jb.losses.l2_loss)
    >>> result = jb.training.fit(bptt, optax.sgd(0.1), theta, [train] * 500, callback=stopping)
    >>> best = result.observed
    >>> int(result.state.step) < 500, evaluate(best.theta, [held_out]) == float(best.loss)
    (True, True)
    """
    arguments.called_with("evaluate", evaluate, "theta")
    arguments.count("every", every)
    if patience is not None:
        arguments.count("patience", patience)
    arguments.at_least("min_delta", min_delta, 0)
    _errors.new_scalar(name, IN_SUMMARY)

    def init(theta):
        return Best(_copied(theta), np.array(np.inf), np.array(0), np.array(-1), np.array(0))

    def update(best, progress):
        step, seen = progress.step, int(best.seen)
        before = seen if seen >= 0 else step - len(progress.metrics.loss)  # θ may come from steps of an earlier fit
        if step // every == before // every:
            return best._replace(seen=np.array(before)), progress
        _errors.new_scalar(name, progress.scalars)
        loss = _errors.scalar("evaluate", evaluate(progress.state.theta))
        if loss < best.loss - min_delta:
            theta = _copied(progress.state.theta)
            best = Best(theta, np.array(loss), np.array(step), np.array(step), np.array(0))
        else:
            best = best._replace(seen=np.array(step), waited=best.waited + 1)
        stop = patience is not None and int(best.waited) >= patience
        return best, progress._replace(scalars={**progress.scalars, name: loss}, stop=progress.stop or stop)

    return Observer(init, update)


def _copied(theta):
    return jax.tree.map(jnp.array, theta)  # the state's own arrays are donated to the next dispatch
