"""Several seeds trained as one: θ, its gradient and the optimiser's memory with a leading axis of seeds.

What is said of one network holds of each: a gradient is clipped by its own norm, and no seed sees another's data. The
batches are ``[T, S, B, …]``.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

import jaxbptt as jb
from experiments.kit import trained
from experiments.study import Report


class Curves(NamedTuple):
    """What a training found.

    Attributes:
        theta: at its end, ``[S, …]``.
        at: after which steps was measured, ``[M]``.
        values: ``[M, S]``.
    """

    theta: Any
    at: np.ndarray
    values: np.ndarray


def init(model: jb.Model, seed: int, seeds: int, **sizes: int) -> jb.Theta:
    """θ of each seed, its leaves ``[S, …]``.

    Args:
        model: f and g.
        seed: the first key.
        seeds: S.
        sizes: as for ``model.init``.

    >>> model = jb.rnn(jb.cells.elman(), jb.readouts.linear())
    >>> init(model, 0, 4, input_size=3, hidden_size=5, output_size=2).h.W_x.shape
    (4, 5, 3)
    """
    return jax.vmap(lambda key: model.init(key, **sizes))(jax.random.split(jax.random.key(seed), seeds))


def estimator(single: jb.GradientEstimator) -> jb.GradientEstimator:
    """The estimator of each seed's gradient for a batch ``[T, S, B, …]``; its loss is the mean over the seeds.

    Args:
        single: of whole sequences.
    """

    def begin(theta, h_0=None, *, key=None):
        return ()

    def update(theta, state, xs, ys, *, mask=None, lengths=None, key=None):
        def one(theta, xs, ys, mask, lengths):
            return single.update(theta, single.init(theta), xs, ys, mask=mask, lengths=lengths)[0]

        estimate = jax.vmap(one, in_axes=(0, 1, 1, 1, 0))(theta, xs, ys, mask, lengths)
        return estimate._replace(loss=jnp.mean(estimate.loss)), state

    return jb.GradientEstimator(begin, update)


def optimizer(single: optax.GradientTransformation) -> optax.GradientTransformation:
    """The optimiser of each seed for itself."""
    return optax.GradientTransformation(jax.vmap(single.init), jax.vmap(single.update))


def batches(draw: Callable[[np.random.Generator], Any], seed: int, seeds: int) -> Callable[[int], Any]:
    """Batch k of all seeds, leaves ``[T, S, B, …]``: that of seed s is drawn from ``(seed, s, k)``.

    Args:
        draw: a batch of one seed, ``[T, B, …]``, from a generator.
        seed: of the study.
        seeds: S.

    >>> at = batches(lambda rng: (rng.random((7, 2)),), 0, 3)
    >>> at(5)[0].shape, bool((at(5)[0] == at(5)[0]).all()), bool((at(5)[0] == at(6)[0]).any())
    ((7, 3, 2), True, False)
    """

    def batch(k):
        drawn = [draw(np.random.default_rng([seed, s, k])) for s in range(seeds)]
        return jax.tree.map(lambda *leaves: np.stack(leaves, axis=1), *drawn)

    return batch


def held_out(draw: Callable[[np.random.Generator], Any], seed: int, which: int = 0) -> Any:
    """One batch for a test of all seeds, from a stream that no training reads; another for another `which`."""
    rng = np.random.default_rng([seed, 0, 0, 1 + which])  # NumPy fills three words up to four with a 0
    return jax.tree.map(jnp.asarray, draw(rng))


def train(
    config: Any,
    single: jb.GradientEstimator,
    optimiser: optax.GradientTransformation,
    theta: jb.Theta,
    batches: Callable[[int], Any],
    measure: Callable[[jb.Theta], Any],
    report: Report,
    *,
    name: str,
    steps: int,
    every: int,
    solved: float,
) -> Curves:
    """Trains all seeds by `experiments.kit.trained.fit`, measures each now and then, and ends when all are solved.

    Args:
        config: with the flags of a study that trains.
        single: the estimator of one seed.
        optimiser: of one seed.
        theta: of all seeds, ``[S, …]``.
        batches: of all seeds, by the number of the step.
        measure: ``theta -> [S]``, on data that is not learned from; the lower the better.
        report: of progress.
        name: of this training among those of the study.
        steps: at most.
        every: so many steps are measured once, and make one dispatch.
        solved: a measurement below is as good as can be wanted.

    Returns:
        The `Curves`, up to where it ended.
    """
    at = range(every, steps + 1, every)
    names = [f"test_{s}" for s in range(jax.tree.leaves(theta)[0].shape[0])]
    result = trained.fit(
        config,
        estimator(single),
        optimizer(optimiser),
        theta,
        batches,
        steps=at[-1],
        steps_per_dispatch=every,
        observers=[trained.recorder(lambda theta: list(measure(theta)), at, names), _until(names, solved)],
        report=report,
        name=name,
    )
    record = result.observed[0]
    return Curves(result.theta, np.array(at)[: record.count], record.values[: record.count])


def _until(names, low):
    """Ends the run when every measurement of these names is below a level; stands after what measures."""

    def update(state, progress):
        reached = all(progress.scalars.get(name, np.inf) < low for name in names)
        return state, progress._replace(stop=progress.stop or reached)

    return jb.training.Observer(lambda theta: (), update)


def first_below(at: np.ndarray, values: np.ndarray, low: float) -> np.ndarray:
    """After how many steps each seed was first measured below a level; infinite for a seed that never was.

    Args:
        at: after which steps was measured, ``[M]``.
        values: ``[M, S]``; NaN where it was not.
        low: the level.

    >>> first_below(np.array([10, 20, 30]), np.array([[0.5, 0.4], [0.1, 0.3], [0.2, np.nan]]), 0.2).tolist()
    [20.0, inf]
    """
    below = values < low
    return np.where(below.any(axis=0), np.asarray(at, float)[below.argmax(axis=0)], np.inf)


def standard_error(values: np.ndarray) -> float:
    """Of the mean of the seeds; NaN for one seed.

    >>> round(standard_error(np.array([1.0, 2.0, 3.0])), 6)  # 1/√3
    0.57735
    """
    return float(np.std(values, ddof=1) / np.sqrt(len(values))) if len(values) > 1 else np.nan
