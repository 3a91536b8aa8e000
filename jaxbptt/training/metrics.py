"""What happened at each step, for others to read while it goes on: JSON lines and TensorBoard."""

import json
import math
import os
import pathlib

import numpy as np

from jaxbptt.training import _disk_errors, _errors, _files
from jaxbptt.training.observers import Observer, Progress

__all__ = ["jsonl", "summary", "tensorboard"]

IN_SUMMARY = ("step", "loss", "gradient_norm", "skipped")  # before what observers measured


def summary(progress: Progress) -> dict[str, float | int | None]:
    """One dispatch in a few numbers; what is not finite is ``None``, as JSON has no word for it.

    Args:
        progress: after a dispatch.

    Returns:
        ``step``; the mean ``loss`` and the largest ``gradient_norm`` of the steps that were not skipped; ``skipped``,
        how many were; and the scalars that observers before this one measured.

    Raises:
        TypeError, ValueError: for a scalar with one of these names, or whose name is no str.

    >>> from jaxbptt.training.step import Metrics
    >>> found = Metrics(np.array([3.0, np.nan, 1.0]), np.array([0.5, np.inf, 2.0]), np.array([1, 0, 1], bool), 0, 0)
    >>> summary(Progress(3, found, None, {"validation_loss": 0.25}))
    {'step': 3, 'loss': 2.0, 'gradient_norm': 2.0, 'skipped': 1, 'validation_loss': 0.25}
    """
    finite = np.asarray(progress.metrics.finite)
    losses, norms = (np.asarray(x, np.float64)[finite] for x in (progress.metrics.loss, progress.metrics.gradient_norm))
    for name in progress.scalars:
        _errors.new_scalar(name, IN_SUMMARY)
    loss, norm = np.mean(losses) if len(losses) else None, np.max(norms) if len(norms) else None
    values = dict(zip(IN_SUMMARY, (int(progress.step), loss, norm, int(np.sum(~finite))), strict=True))
    return {name: _plain(value) for name, value in {**values, **progress.scalars}.items()}


def _plain(value):
    if isinstance(value, (int, np.integer)):
        return int(value)
    return None if value is None or not math.isfinite(value) else float(value)


def jsonl(path: str | os.PathLike) -> Observer:
    """One line of JSON for each dispatch, the `summary`, in a file that others may read meanwhile.

    A run that goes on from a checkpoint cuts off the lines written after it: no step stands there twice. In the end the
    file is that of a run that was never interrupted, byte for byte.

    Args:
        path: of the file; its folder must be there. What another run wrote is not overwritten.

    Returns:
        An `Observer` whose state is the length of the file. It waits for the metrics of each dispatch.

    Raises:
        OSError: while it runs, when the file can't be written, or holds another run's lines.

    >>> import tempfile, optax, jax
    >>> import jax.numpy as jnp, jaxbptt as jb
    >>> model = jb.rnn(jb.cells.elman(), jb.readouts.linear())
    >>> theta = model.init(jax.random.key(0), input_size=3, hidden_size=5, output_size=2)
    >>> bptt, batch = jb.estimators.bptt(model, jb.losses.l2_loss), (jnp.ones((7, 4, 3)), jnp.ones((7, 4, 2)))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = pathlib.Path(folder, "metrics.jsonl")
    ...     result = jb.training.fit(bptt, optax.sgd(0.1), theta, [batch] * 24, callback=jsonl(path))
    ...     [json.loads(line)["step"] for line in path.read_text().splitlines()]
    [8, 16, 24]
    """
    _disk_errors.path("path", path)
    path = pathlib.Path(path)

    def begin():
        try:
            found = _files.length(path)
            _files.append(path, found, b"")  # what can't be written is known before the first step
        except OSError as error:
            _disk_errors.not_written(path, error)
        _disk_errors.new_file(path, found)

    def update(length, progress):
        line = (json.dumps(summary(progress), allow_nan=False) + "\n").encode()
        try:
            return np.array(_files.append(path, int(length), line)), progress
        except OSError as error:
            _disk_errors.not_written(path, error)

    return Observer(lambda theta: np.array(0), update, begin)


def tensorboard(folder: str | os.PathLike) -> Observer:
    """The `summary` of each dispatch as TensorBoard event files, written by tensorboardX.

    A run that goes on from a checkpoint starts a new file. Its first event tells TensorBoard to forget the others from
    that step on. Any other run adds a file: give each run a folder, or TensorBoard draws both as one.

    Args:
        folder: where the files go.

    Returns:
        An `Observer` whose state is the last step written. It waits for the metrics of each dispatch.

    Raises:
        ImportError: without tensorboardX (``pip install tensorboardX``).
        OSError: while it runs, when the folder can't be written.

    >>> observer = tensorboard("runs/one")
    >>> int(observer.init(None))
    0
    """
    _disk_errors.path("folder", folder)
    _disk_errors.tensorboard()
    writers, fresh = [], []

    def update(last, progress):
        from tensorboardX import SummaryWriter

        try:
            if not writers:
                writers.append(SummaryWriter(os.fspath(folder), purge_step=None if fresh else int(last) + 1))
            for name, value in summary(progress).items():
                if name != "step" and value is not None:
                    writers[0].add_scalar(name, value, progress.step, walltime=None)
            writers[0].flush()
        except OSError as error:
            _disk_errors.not_written(folder, error)
        return np.array(progress.step), progress

    def end():
        for writer in writers:
            writer.close()
        writers.clear()
        fresh.clear()

    return Observer(lambda theta: np.array(0), update, lambda: fresh.append(True), end)
