"""A run on disk, by orbax: what was saved comes back bit for bit, or not at all.

One folder a checkpoint, named after its step::

    000000000400/state/         the arrays, as orbax writes them
    000000000400/manifest.json  their names and forms, and the SHA-256 of every other file; written last

It is written as 000000000400.part-…, and renamed when all of it is on the disk. It is good when every file has its hash
and none is missing or added. So a process may be killed at any moment. Its unfinished files have a name that nobody
reads. Its finished ones are untouched: older checkpoints go only after a newer one is on the disk. (A step
saved again takes the place of its older self by two renames; killed between them, the checkpoint before is used.)
A run holds the file `.lock` beside them while it goes on, so that a second one is refused; a kill lets go of it.
Nothing is unpickled: orbax reads arrays, the manifest is JSON, and neither names a class. The hashes find damage, not
an enemy who writes new hashes.
"""

import contextlib
import functools
import hashlib
import json
import os
import pathlib
import re
import threading
import uuid
from collections.abc import Mapping
from typing import Any

import jax

from jaxbptt._errors import arguments
from jaxbptt.training import _disk_errors, _files, _leaves
from jaxbptt.training.fit import Saver

__all__ = ["saver"]

_FORMAT = 1
_MANIFEST = "manifest.json"
_ORBAX = threading.RLock()  # it numbers what it does in a count of the process, which threads would share


def saver(folder: str | os.PathLike, *, every: int, keep: int = 2, about: Mapping[str, Any] | None = None) -> Saver:
    """Keeps a run in `folder`, for ``fit(…, checkpoints=…)``.

    After a kill, the same call of `fit` goes on from the newest good checkpoint. It ends with the same bits as if
    nothing had happened. A torn or tampered checkpoint is refused, with a warning, and the one before it used. A run
    that is over is returned at once: that call is also the way to its θ.

    Args:
        folder: where; made when it is not there. One run has it to itself: a second one at the same time is an error.
        every: how many steps lie between two checkpoints; they fall on the ends of dispatches.
        keep: how many are kept, the newest; with 1 there is none to fall back on.
        about: the settings that tell this run from another, as JSON has them. A checkpoint with another `about` is an
            error.

    Returns:
        The `Saver`. ``save`` returns when all is on the disk, which takes about 0.1 s for a small model. Fits in
        several threads save in turn.

    Raises:
        ImportError: without orbax-checkpoint (``pip install orbax-checkpoint``).
        NotImplementedError: in one of several processes of ``jax.distributed``.
        TypeError, ValueError: for bad counts. From ``restore``: when no checkpoint is good, or it is another run's.
            `about` tells runs apart, and so do the tree, shapes and dtypes of what is kept. A learning rate or the
            function of a cell is told by `about` alone.
        OSError: from ``save`` when the folder can't be written, with the step of the last good checkpoint; from
            ``alone`` when another run has the folder.

    >>> import tempfile, optax
    >>> import jax.numpy as jnp, jaxbptt as jb
    >>> model = jb.rnn(jb.cells.elman(), jb.readouts.linear())
    >>> theta = model.init(jax.random.key(0), input_size=3, hidden_size=5, output_size=2)
    >>> bptt, batch = jb.estimators.bptt(model, jb.losses.l2_loss), (jnp.ones((7, 4, 3)), jnp.ones((7, 4, 2)))
    >>> folder = tempfile.TemporaryDirectory()
    >>> options = {"steps": 40, "checkpoints": saver(folder.name, every=16)}
    >>> once = jb.training.fit(bptt, optax.sgd(0.1), theta, lambda k: batch, **options)
    >>> again = jb.training.fit(bptt, optax.sgd(0.1), theta, lambda k: batch, **options)  # is over: nothing is done
    >>> len(again.metrics.loss), bool((again.theta.h.W_h == once.theta.h.W_h).all())
    (0, True)
    >>> folder.cleanup()
    """
    _disk_errors.path("folder", folder)
    arguments.count("every", every)
    arguments.count("keep", keep)
    about = _disk_errors.json_object("about", about)
    _disk_errors.orbax()
    _disk_errors.one_process(jax.process_count())
    root = pathlib.Path(folder).absolute()
    save, restore = functools.partial(_save, root, keep, about), functools.partial(_restore, root, about)
    return Saver(every, save, restore, functools.partial(_alone, root))


@contextlib.contextmanager
def _alone(root):
    """The folder is this run's until the end."""
    with _files.locked(root / ".lock") as ours:
        if not ours:
            _disk_errors.in_use(root)
        yield


def _save(root, keep, about, step, tree):
    import orbax.checkpoint as ocp

    leaves = _leaves.named(tree)
    part, old = (root / f"{step:012d}.part-{uuid.uuid4().hex}" for _ in range(2))
    try:
        for name in _files.names(root):  # what a kill or a full disk left half written
            if re.fullmatch(r"\d{12}\.part-[0-9a-f]{32}", name):
                _files.discard(root / name)
        _files.new_folder(part)
        with _ORBAX, ocp.StandardCheckpointer() as checkpointer:
            checkpointer.save(part / "state", _numbered(leaves))
            checkpointer.wait_until_finished()
        manifest = {
            "format": _FORMAT,
            "step": step,
            "about": about,
            "versions": {"jax": jax.__version__, "orbax": ocp.__version__},
            "leaves": {name: _leaves.form(leaf) for name, leaf in leaves.items()},
            "files": _files.digests(part, sync=True),
        }
        _files.write(part / _MANIFEST, _encoded({**manifest, "sha256": _digest(manifest)}))
        _files.replace(part, root / f"{step:012d}", aside=old)
    except Exception as error:  # orbax has many of its own, for a full disk alone
        _files.discard(part)  # a thread of orbax may write on, and make it anew: under a name that nobody reads
        good = [s for s in _steps(root) if _read_manifest(root / f"{s:012d}", s)[1] is None]
        _disk_errors.not_saved(root, step, max(good, default=None), error)
    _prune(root, step, keep)


def _prune(root, step, keep):
    """Leaves the newest complete ones, and what is newer than this: a run that went back comes there again."""
    complete = [s for s in _steps(root) if s <= step and _files.exists(root / f"{s:012d}" / _MANIFEST)]
    oldest = complete[-keep:][0]
    for s in _steps(root):
        if s < oldest:
            _files.remove(root / f"{s:012d}")


def _restore(root, about, tree):
    refused = {}
    for step in reversed(_steps(root)):
        path = root / f"{step:012d}"
        manifest, reason = _read_manifest(path, step)
        if reason:
            refused[step] = reason
            continue
        _disk_errors.same_about(path, manifest["about"], about)
        leaves = _leaves.named(tree)
        _disk_errors.same_leaves(path, manifest["leaves"], {name: _leaves.form(leaf) for name, leaf in leaves.items()})
        try:
            restored = _read(path / "state", leaves)
        except Exception as error:  # what was written is there, but this orbax can't read it
            refused[step] = f"orbax can't read it ({type(error).__name__}: {error!s:.200})"
            continue
        _disk_errors.refused(root, refused, step)
        return jax.tree.unflatten(jax.tree.structure(tree), restored)
    _disk_errors.refused(root, refused, None)
    return None


def _read(path, leaves):
    import orbax.checkpoint as ocp

    with _ORBAX, ocp.StandardCheckpointer() as checkpointer:
        arrays = checkpointer.restore(path, _numbered(leaves))
    return [_leaves.like(leaf, arrays[f"{k}"]) if f"{k}" in arrays else leaf for k, leaf in enumerate(leaves.values())]


def _numbered(leaves):
    """The arrays by position: a path may hold what a file's name can't. An empty array is all in its form."""
    arrays = {f"{k}": _leaves.on_host(leaf) for k, leaf in enumerate(leaves.values())}
    return {k: array for k, array in arrays.items() if array.size}


def _read_manifest(path, step):
    """The manifest and why it can't be used, ``None`` when it can."""
    try:
        written = _files.read(path / _MANIFEST)
        content = json.loads(written)
        manifest = {key: value for key, value in content.items() if key != "sha256"}
        right = written == _encoded({**manifest, "sha256": _digest(manifest)})
        right &= (manifest["format"], manifest["step"]) == (_FORMAT, step)
        right &= all(isinstance(manifest[part], dict) for part in ("about", "leaves", "files"))
        found = _files.digests(path)
    except FileNotFoundError:
        return None, f"{_MANIFEST} is missing"
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        return None, f"its {_MANIFEST} can't be read ({type(error).__name__})"
    if not right or found.pop(_MANIFEST) == _files.NO_FILE:
        return None, f"its {_MANIFEST} is not as it was written"
    for name in sorted(found.keys() | manifest["files"].keys()):
        if name not in found:
            return None, f"{name} is missing"
        if name not in manifest["files"]:
            return None, f"{name} was added"
        if found[name] != manifest["files"][name]:
            return None, f"{name} is not as it was written"
    return manifest, None


def _steps(root):
    return sorted(int(name) for name in _files.names(root) if re.fullmatch(r"\d{12}", name))


def _encoded(manifest):
    return (json.dumps(manifest, indent=1, sort_keys=True) + "\n").encode()


def _digest(manifest):
    return hashlib.sha256(_encoded(manifest)).hexdigest()
