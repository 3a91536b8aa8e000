"""Checkpoints and metrics: what is on the disk, and what the disk refuses."""

import errno
import importlib.util
import json
import os
import warnings
from typing import NoReturn

from jaxbptt._errors import words


def orbax():
    _installed("orbax.checkpoint", "orbax-checkpoint")


def tensorboard():
    _installed("tensorboardX", "tensorboardX")


def _installed(module, package):
    try:
        found = importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # of the package that it lies in
        found = False
    if not found:
        raise ImportError(f"this needs {package}, which is not installed: run `pip install {package}`")


def one_process(number):
    if number > 1:
        raise NotImplementedError(
            f"checkpoints are written by one process: got {number} of `jax.distributed`; keep the run with a `Saver` "
            "of your own, whose `save` writes what each process holds"
        )


def json_object(name, value):
    """The mapping as it comes back from JSON; an empty one for None."""
    try:
        return dict(json.loads(json.dumps({} if value is None else dict(value), allow_nan=False)))
    except (TypeError, ValueError) as error:
        raise TypeError(f"`{name}` must be a mapping that JSON can hold, such as flags: {error}") from None


def path(name, value):
    if not isinstance(value, (str, os.PathLike)) or not isinstance(os.fspath(value), str) or not os.fspath(value):
        raise words.other(name, "a path, as a str or a pathlib.Path", value)


def in_use(root) -> NoReturn:
    raise BlockingIOError(
        f"`{root}` is in use by another run, of this process or another: a folder of checkpoints is for one at a time; "
        "wait for its end, or give each run a folder of its own"
    )


def not_saved(root, step, last, error) -> NoReturn:
    kept = f"the last good one, of step {last}, is as it was" if last is not None else "there is none before it"
    remedies = [remedy for code, remedy in _REFUSALS.items() if remedy and os.strerror(code) in str(error)]
    raise OSError(
        f"the checkpoint of step {step} could not be written to `{root}`: {_reason(error)}; {kept}. "
        + (f"{remedies[0]}, then start again" if remedies else "Start again")
    ) from error


def not_written(path, error) -> NoReturn:
    raise OSError(f"metrics could not be written to `{path}`: {_reason(error)}") from error


def _reason(error):
    """What the disk said, which a library may bury in the midst of a long line of its own."""
    said = [os.strerror(code) for code in _REFUSALS if os.strerror(code) in str(error)]
    line = (str(error).strip().splitlines() or [""])[0]
    return f"{', '.join(said)} ({type(error).__name__})" if said else f"{type(error).__name__}: {line:.200}"


_ROOM, _ELSEWHERE = "Make room", "Give a folder that can be written"
_REFUSALS = {errno.ENOSPC: _ROOM, errno.EDQUOT: _ROOM, errno.EFBIG: None, errno.EIO: None}
_REFUSALS |= dict.fromkeys((errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR), _ELSEWHERE)


def new_file(path, length):
    if length:
        raise FileExistsError(
            f"`{path}` holds {length} bytes of another run: remove it or give another path; "
            "only a run that goes on from a checkpoint adds to its own"
        )


def same_about(path, kept, given):
    if differing := sorted(key for key in kept | given if kept.get(key) != given.get(key)):
        entries = ", ".join(f"{key}={kept.get(key)!r:.60} there, {given.get(key)!r:.60} here" for key in differing)
        raise ValueError(f"the checkpoint `{path}` is of another run: {entries}; give the same, or another folder")


def same_leaves(path, kept, given):
    for name, there, here in _differing(kept, given):
        raise ValueError(
            f"the checkpoint `{path}` is of another model, optimiser or callback: the leaf `{name}` is {there} there "
            f"and {here} here; give the same, or another folder"
        )


def same_observed(began, became):
    """A checkpoint is read back into what `init` makes."""
    for name, first, then in _differing(began, became):
        raise TypeError(
            "`update` of an Observer must keep the tree, shapes and dtypes of its state, so that a checkpoint can be "
            f"gone on from: got {then} at `{name}` of the callbacks' states, expected what `init` makes, {first}; "
            "begin with `np.float32(0)`, say, or convert in `update`"
        )


def _differing(a, b):
    """The leaves that are not of the same form, and both forms in words."""
    return [(name, _form(a.get(name)), _form(b.get(name))) for name in sorted(a | b) if a.get(name) != b.get(name)]


def _form(leaf):
    return "absent" if leaf is None else f"{leaf['dtype']}{leaf['shape']}{leaf.get('key', '')}"


def refused(root, reasons, used):
    """Says which checkpoints, by step, were refused and why; `used` is the step of the one used instead."""
    if not reasons:
        return
    listed = "; ".join(f"that of step {step} is refused, as {reason}" for step, reason in reasons.items())
    if used is None:
        raise ValueError(f"no checkpoint in `{root}` is good: {listed}; remove the folder to begin anew")
    warnings.warn(
        f"checkpoints in `{root}`: {listed}; that of step {used} is used instead", RuntimeWarning, stacklevel=2
    )
