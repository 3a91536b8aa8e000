"""What a benchmark has measured so far, on disk, so that a run that is cut off goes on with ``--resume``.

One file of JSON a measurement, below ``out/measured``, until the result is written. To go on, flags, machine and
versions must be the same.
"""

import json
import shutil
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from experiments.benchmarks.measuring import as_json
from experiments.kit import output
from experiments.kit.options import BadInputError

_FOLDER = "measured"


class Kept(NamedTuple):
    """The measurements of a run.

    Attributes:
        get: by name, ``(seconds, found)``; ``None`` for what isn't measured yet.
        put: ``(name, seconds, found)`` keeps it.
    """

    get: Callable[[str], tuple[float, Any] | None]
    put: Callable[[str, float, Any], None]


def nowhere() -> Kept:
    """Keeps nothing.

    >>> kept = nowhere()
    >>> kept.put("speed", 1.0, "a row")
    >>> kept.get("speed")
    """
    return Kept(lambda name: None, lambda name, seconds, found: None)


def below(out: Path, about: Mapping[str, Any], resume: bool) -> Kept:
    """Keeps measurements in a folder.

    Args:
        out: the output folder.
        about: whatever must be the same to go on: flags, machine, versions.
        resume: whether to go on with what is there.

    Returns:
        A `Kept`.

    Raises:
        BadInputError: when something is there and `resume` is not given, or it is another run's.
    """
    folder = out / _FOLDER
    about = json.loads(json.dumps(output.plain(about)))
    described = folder / "about.json"
    if described.exists():
        if not resume:
            raise BadInputError(f"`{out}` holds a run that was cut off: go on with `--resume`, or remove `{folder}`")
        try:
            before = json.loads(described.read_text())
        except ValueError:
            raise BadInputError(f"`{described}` is damaged: remove `{folder}` to begin anew") from None
        _require_same(folder, before, about)
    else:
        shutil.rmtree(folder, ignore_errors=True)  # of nobody knows which run
        if resume:
            sys.stderr.write(f"`{out}` holds nothing to go on with: the run begins\n")
        folder.mkdir(parents=True, exist_ok=True)
        output.save(described, json.dumps(about, indent=2).encode())

    def path(name):
        return folder / f"{name.replace(' ', '-')}.json"

    def get(name):
        try:
            seconds, found = as_json.loads(path(name).read_text())
            return seconds, found
        except FileNotFoundError:
            return None
        except ValueError as error:
            sys.stderr.write(f"warning: `{path(name)}` is damaged, and is measured again: {error}\n")
            return None

    def put(name, seconds, found):
        try:
            output.save(path(name), as_json.dumps((seconds, found)).encode())
        except OSError as error:  # the run is worth more than what it would go on with
            sys.stderr.write(f"warning: `{path(name)}` could not be written: {error.strerror}\n")

    return Kept(get, put)


def forget(out: Path) -> None:
    """Removes what is kept: the result is written."""
    shutil.rmtree(out / _FOLDER, ignore_errors=True)


def _require_same(folder, before, about):
    differ = [
        f"{name} {before.get(name)} and not {about.get(name)}" for name in about if before.get(name) != about[name]
    ]
    if differ:
        raise BadInputError(
            f"`--resume`: `{folder}` is of another run, with {'; '.join(differ)}: remove it to begin anew"
        )
