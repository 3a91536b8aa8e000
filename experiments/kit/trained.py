"""What every trained study shares: progress, metrics and checkpoints in the output folder, Ctrl-C and ``--resume``.

A study builds its estimator, optimiser and batches, and calls `fit` in place of ``jaxbptt.training.fit``. With an
output folder there are, below ``out/NAME``: ``metrics.jsonl``, ``checkpoints/`` until the study is done, and
``events/`` when TensorBoard was asked for. Its config has the flags of `Flags`.
"""

import contextlib
import dataclasses
import logging
import shutil
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

import jaxbptt as jb
from experiments.kit import options, output
from experiments.kit.devices import sharing
from experiments.kit.options import BadInputError
from experiments.study import Report


@dataclasses.dataclass(frozen=True)
class Flags:
    """The flags of a study that trains; a config inherits them."""

    out: Path | None = None
    """The output folder; results/ and the study's name by default."""
    resume: bool = False
    """Go on with the run that was cut off in the output folder."""
    tensorboard: bool = False
    """Write TensorBoard event files as well."""
    devices: int | None = None
    """How many devices share a batch, as far as they divide it; all there are by default."""

    def __post_init__(self):
        if self.devices is not None:
            options.at_least("devices", self.devices, 1)


# what may differ when a run is gone on with: the bits don't depend on it, and data are known by their SHA-256
_FLAGS = {"out", "resume", "tensorboard", "data"}


def bptt(model: jb.Model, loss: jb.types.Loss, batch_size: int, devices: int | None) -> jb.GradientEstimator:
    """Backpropagation through time of a batch that is split over the devices, or on the one there is.

    Args:
        model: f and g.
        loss: L.
        batch_size: B.
        devices: the flag.

    Returns:
        The estimator: the same numbers to rounding, however many devices there are.
    """
    chosen = sharing(batch_size, devices)
    if len(chosen) == 1:
        return jb.estimators.bptt(model, loss)
    return jb.estimators.from_objective(jb.data_parallel(jb.objective(model, loss), chosen))


class InterruptedRunError(Exception):
    """Ctrl-C: the message says what is saved, for ``--resume``."""


def fit(
    config: Any,
    estimator: jb.GradientEstimator,
    optimizer: Any,
    theta: Any,
    batches: Callable[[int], Any],
    *,
    steps: int,
    report: Report,
    name: str = "training",
    steps_per_dispatch: int = 8,
    observers: Sequence[jb.training.Observer] = (),
    **options: Any,
) -> jb.training.Fit:
    """``jaxbptt.training.fit``, watched and kept.

    Args:
        config: a dataclass with the `Flags`; all its other flags must be the same when a run is gone on with. With
            ``out=None`` nothing is written.
        estimator: as for ``jaxbptt.training.fit``, like `optimizer`, `theta`, `batches`, `steps`,
            `steps_per_dispatch` and `options`.
        optimizer: see there.
        theta: see there.
        batches: a function of the step.
        steps: how many.
        report: of progress, with the loss.
        name: of this training among those of the study.
        steps_per_dispatch: see there.
        observers: those of the study; what they add to ``scalars`` goes to the metrics.
        options: see there.

    Returns:
        The ``Fit``, whose ``observed`` are the states of `observers`.

    Raises:
        InterruptedRunError: after Ctrl-C, when it could be saved; ``KeyboardInterrupt`` when there is no folder.
        BadInputError: when the folder holds a run that was cut off and ``--resume`` was not given, or another run.
    """
    folder = None if config.out is None else config.out / name
    writers, saver = (), None
    if folder is not None:
        saver = _saver(config, folder, max(steps_per_dispatch, steps // 20))
        writers = (jb.training.metrics.jsonl(folder / "metrics.jsonl"),)
        if config.tensorboard:
            writers += (jb.training.metrics.tensorboard(folder / "events"),)

    def show(progress):
        report(f"{name}, steps", progress.step, steps, f"loss {float(progress.metrics.loss[-1]):.4g}")

    with _interruptible() as asked:
        result = jb.training.fit(
            estimator,
            optimizer,
            theta,
            batches,
            steps=steps,
            steps_per_dispatch=steps_per_dispatch,
            callback=[*observers, *writers, show, lambda progress: bool(asked)],
            checkpoints=saver,
            **options,
        )
    if asked:
        if folder is None:
            raise KeyboardInterrupt
        raise InterruptedRunError(f"interrupted after step {int(result.state.step)}, which is saved")
    return result._replace(observed=result.observed[: len(observers)])


_kept: set[Path] = set()


def is_kept(out: Path) -> bool:
    """Whether this process keeps a training below `out` with which ``--resume`` can go on."""
    return any(path.is_relative_to(out) and path.exists() for path in _kept)


def done(out: Path) -> None:
    """Removes the checkpoints that this process kept below `out`, whose result is written: nothing is left to do."""
    for path in {path for path in _kept if path.is_relative_to(out)}:
        shutil.rmtree(path)
        _kept.remove(path)


class Record(NamedTuple):
    """``values [len(at), len(names)]``, of which the first ``count`` rows are measured."""

    values: np.ndarray
    count: np.ndarray


def recorder(measure: Callable[[Any], Sequence[Any]], at: Sequence[int], names: Sequence[str]) -> jb.training.Observer:
    """Measures θ after certain steps; a checkpoint holds what was measured before it.

    Args:
        measure: ``theta -> `` one number for each of `names`.
        at: after which steps, ascending; they should be ends of dispatches.
        names: of the numbers, in the metrics.

    Returns:
        An observer with the state `Record`.

    >>> observer = recorder(lambda theta: [2 * theta], at=[1, 3], names=["twice"])
    >>> state = observer.init(0.0)
    >>> for step in (1, 2, 3):
    ...     progress = jb.training.Progress(step, None, jb.training.TrainState(step, *[None] * 5), {})
    ...     state, progress = observer.update(state, progress)
    >>> state.values.tolist(), dict(progress.scalars)
    ([[2.0], [6.0]], {'twice': 6.0})
    """

    def init(theta):
        return Record(np.full((len(at), len(names)), np.nan), np.array(0))

    def update(record, progress):
        due = int(np.searchsorted(at, progress.step, side="right"))
        if due == record.count:
            return record, progress
        measured = [float(number) for number in measure(progress.state.theta)]
        values = record.values.copy()
        values[int(record.count) : due] = measured
        scalars = {**progress.scalars, **dict(zip(names, measured, strict=True))}
        return Record(values, np.array(due)), progress._replace(scalars=scalars)

    return jb.training.Observer(init, update)


def history(name: str, most: int) -> jb.training.Observer:
    """Keeps what an observer before it measured, such as ``early_stopping``; a checkpoint holds it.

    Args:
        name: of the scalar.
        most: how many measurements there are room for; NaN stands for those not made.

    Returns:
        An observer with the state `Record`.

    >>> observer = history("loss", 2)
    >>> record, _ = observer.update(observer.init(None), jb.training.Progress(8, None, None, {"loss": 0.25}))
    >>> record.values.tolist(), int(record.count)
    ([[0.25], [nan]], 1)
    """

    def init(theta):
        return Record(np.full((most, 1), np.nan), np.array(0))

    def update(record, progress):
        if name not in progress.scalars:
            return record, progress
        values = record.values.copy()
        values[int(record.count)] = progress.scalars[name]
        return Record(values, record.count + 1), progress

    return jb.training.Observer(init, update)


def _saver(config, folder, every):
    kept = folder / "checkpoints"
    if kept.is_dir() and not any(path.is_dir() for path in kept.iterdir()):
        shutil.rmtree(kept)  # cut off before the first one was whole
    if not config.resume:
        if kept.exists():
            raise BadInputError(f"`{folder}` holds a run that was cut off: go on with `--resume`, or remove `{kept}`")
    elif not kept.exists():
        sys.stderr.write(f"`{folder}` holds nothing to go on with: the run begins\n")
    if not kept.exists():  # what is here is of a run that is done, and whose result is written anew
        for path in (folder / "metrics.jsonl", *folder.glob("events/events.out.tfevents.*")):
            path.unlink(missing_ok=True)
    folder.mkdir(parents=True, exist_ok=True)
    _kept.add(kept)
    about = {name: value for name, value in output.flags(config).items() if name not in _FLAGS}
    about["devices"] = config.devices or len(jax.devices())  # another split of the batch rounds otherwise
    saver = jb.training.checkpoints.saver(kept, every=every, about=about)
    logging.getLogger("absl").setLevel(logging.CRITICAL)  # orbax logs a traceback before it raises

    def restore(run):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            try:
                restored = saver.restore(run)
            except ValueError as error:  # of another run, or damaged throughout
                raise BadInputError(str(error)) from error
        for warning in caught:
            sys.stderr.write(f"warning: {warning.message}\n")
        return restored

    return saver._replace(restore=restore)


@contextlib.contextmanager
def _interruptible() -> Iterator[list]:
    """A list that is empty until Ctrl-C; a second Ctrl-C interrupts at once."""
    asked = []
    if threading.current_thread() is not threading.main_thread():
        yield asked
        return
    before = signal.getsignal(signal.SIGINT)

    def ask(number, frame):
        asked.append(number)
        signal.signal(signal.SIGINT, before or signal.default_int_handler)
        sys.stderr.write("interrupting after this step; once more to stop at once\n")

    signal.signal(signal.SIGINT, ask)
    try:
        yield asked
    finally:
        signal.signal(signal.SIGINT, before or signal.default_int_handler)
