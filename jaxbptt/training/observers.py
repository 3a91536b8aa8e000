"""What watches a run: a function, or an `Observer` whose memory is explicit, so that a checkpoint holds it."""

import contextlib
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxbptt.training import _errors
from jaxbptt.training.step import Metrics, TrainState
from jaxbptt.types import PyTree


class Progress(NamedTuple):
    """After a dispatch. Copy what you keep of ``state``: its arrays are given to the next dispatch.

    Attributes:
        step: batches taken so far, as ``state.step`` says.
        metrics: of the steps of this dispatch.
        state: the `TrainState`.
        scalars: what observers measured after this dispatch, by name; each hands it on to the next.
        stop: whether one of them ends the run.

    >>> Progress(step=8, metrics=None, state=None, scalars={"validation_loss": 0.25}).stop
    False
    """

    step: int
    metrics: Metrics
    state: TrainState
    scalars: Mapping[str, Any]
    stop: bool = False


class Observer(NamedTuple):
    """One who watches a run. Several in turn hand the `Progress` on, as optax's transformations do the updates.

    Attributes:
        init: ``theta -> state``, a tree of arrays or numbers: all that must outlive the process.
        update: ``(state, progress) -> (state, progress)``, called after each dispatch; where there are checkpoints the
            state keeps its tree, shapes and dtypes. May add to ``scalars``, and end
            the run by ``stop=True``.
        begin: called once, before the first step of a run that does not go on from a checkpoint.
        end: called when the fit is left, by an error too.

    >>> counter = Observer(init=lambda theta: 0, update=lambda count, progress: (count + 1, progress))
    >>> counter.update(counter.init(None), "a progress")
    (1, 'a progress')
    """

    init: Callable[[Any], PyTree]
    update: Callable[[PyTree, Progress], tuple[PyTree, Progress]]
    begin: Callable[[], None] | None = None
    end: Callable[[], None] | None = None


Callback = Callable[[Progress], object] | Observer
"""A function is called with the `Progress`, and returns True to pause the run."""


class Watch(NamedTuple):
    """All callbacks of a fit as one: the members of `Observer`, ``update`` with a third result, whether to pause."""

    init: Callable[[Any], tuple]
    update: Callable[[tuple, Progress], tuple[tuple, Progress, bool]]
    begin: Callable[[], None]
    end: Callable[[], None]


def _is_true(answer):
    """True of Python's, NumPy's or JAX's; None and whatever else a function happens to return is not."""
    return answer is True or (isinstance(answer, (np.bool_, jax.Array)) and answer.dtype.kind == "b" and bool(answer))


def in_turn(callbacks: tuple[Callback, ...]) -> Watch:
    """The callbacks one after the other; a function has the state ``()``.

    Args:
        callbacks: functions and observers.

    Returns:
        The `Watch`.
    """
    for callback in callbacks:
        _errors.callback(callback, Observer)
    observers = [callback for callback in callbacks if isinstance(callback, Observer)]

    def init(theta):
        return tuple(callback.init(theta) if isinstance(callback, Observer) else () for callback in callbacks)

    def update(states, progress):
        updated, pause = [], False
        for callback, state in zip(callbacks, states, strict=True):
            if isinstance(callback, Observer):
                state, progress = callback.update(state, progress)
            else:
                pause |= _is_true(callback(progress))
            updated.append(state)
        return tuple(updated), progress, pause

    def begin():
        for first in (observer.begin for observer in observers if observer.begin is not None):
            first()

    def end():
        with contextlib.ExitStack() as ends:  # all of them, whatever one raises
            for last in (observer.end for observer in observers if observer.end is not None):
                ends.callback(last)

    return Watch(init, update, begin, end)
