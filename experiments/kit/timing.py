"""Wall-clock times of several ways to do one thing, taken in turns."""

import time
from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import numpy as np
import optax

import jaxbptt as jb
from experiments.study import Report


class Spread(NamedTuple):
    """Of the rounds of one contender."""

    median: float
    low: float
    high: float


def interleaved(contenders: Mapping[str, Callable[[], object]], rounds: int, report: Report) -> dict[str, np.ndarray]:
    """Seconds of each call, ``[rounds]`` a contender.

    Every round calls all contenders, in turning order, so that whatever else the machine does falls on all alike.
    Two calls each before the first round are not counted: they compile, the second as well where the first has moved
    what the contender works on to other devices.

    Args:
        contenders: functions by name; what they return is waited for.
        rounds: how many times each is timed.
        report: of progress.

    Returns:
        The times in seconds, by name.
    """
    names = list(contenders)
    times = {name: np.zeros(rounds) for name in names}
    for name in [*names, *names]:
        jax.block_until_ready(contenders[name]())
    for k in range(rounds):
        for name in names if k % 2 == 0 else reversed(names):
            start = time.perf_counter()
            jax.block_until_ready(contenders[name]())
            times[name][k] = time.perf_counter() - start
        report("timing", k + 1, rounds)
    return times


def spread(values: np.ndarray) -> Spread:
    """Median, smallest and largest.

    >>> spread(np.array([1.0, 5.0, 2.0]))
    Spread(median=2.0, low=1.0, high=5.0)
    """
    return Spread(float(np.median(values)), float(np.min(values)), float(np.max(values)))


def steps_per_second(
    estimators: Mapping[str, jb.GradientEstimator],
    optimizer: optax.GradientTransformation,
    theta: jb.Theta,
    batches: jb.training.Batch,
    rounds: int,
    report: Report,
) -> dict[str, np.ndarray]:
    """Training steps a second by several estimators of one gradient, ``[rounds]`` each.

    Args:
        estimators: by name.
        optimizer: the same for all.
        theta: where all start, wherever it lies: of a training that was split over devices it lies on all of them, and
            an estimator for one device would work on each.
        batches: stacked along a new first axis; one call runs them all in one dispatch.
        rounds: as for `interleaved`.
        report: of progress.

    Returns:
        Steps a second, by name.
    """
    theta = jax.tree.map(np.asarray, theta)

    def runner(estimator):
        trainer = jb.training.trainer(estimator, optimizer)
        state = trainer.init(theta)

        def run():
            nonlocal state
            state, metrics = trainer.steps(state, batches)  # the state given is donated
            return metrics

        return run

    seconds = interleaved({name: runner(estimator) for name, estimator in estimators.items()}, rounds, report)
    return {name: len(batches.xs) / values for name, values in seconds.items()}


def plain_jax(model: jb.Model, loss: jb.types.Loss) -> jb.GradientEstimator:
    """``jax.value_and_grad`` of F over the plain scan, as an estimator: no rule of this library in it."""
    F = jax.value_and_grad(jb.objective(model, loss, adjoint=jb.adjoints.autodiff()))

    def update(theta, state, xs, ys, *, mask=None, lengths=None, key=None):
        return jb.Estimate(*F(theta, xs, ys, mask=mask, lengths=lengths), info=()), state

    return jb.GradientEstimator(init=lambda theta, h_0=None, *, key=None: (), update=update)
