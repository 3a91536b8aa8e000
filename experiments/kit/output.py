"""The output folder: results, configuration, tables and figures, each file written whole or not at all."""

import contextlib
import dataclasses
import datetime
import importlib.metadata
import io
import json
import math
import os
import platform
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

import jaxbptt as jb
from experiments.kit import plots
from experiments.kit.options import BadInputError
from experiments.study import Result

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

_PACKAGES = ("jax", "jaxlib", "numpy", "optax", "scikit-learn", "matplotlib")


def prepare(folder: Path) -> None:
    """Makes the folder and proves that it can be written to: better now than after the run.

    Raises:
        BadInputError: when it can't.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        save(folder / "writable", b"")
        (folder / "writable").unlink()
    except OSError as error:
        raise BadInputError(f"cannot write to the output folder `{folder}`: {error.strerror}") from error


@contextlib.contextmanager
def alone(folder: Path):
    """Only one process at a time: what two runs write to one folder would be a mixture of both.

    The lock is the system's, on the folder itself; it leaves no file and ends with the process, however that ends. A
    file system that has no locks is used without one.

    Raises:
        BadInputError: when another run has it.
    """
    if fcntl is None:
        yield
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # of a file system without locks
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise BadInputError(
                    f"another run writes to the output folder `{folder}`: wait for its end, or give `--out`"
                ) from None
        yield
    finally:
        os.close(handle)


def write(
    folder: Path, study: str, config: Any, command: Sequence[str], result: Result, seconds: float | None = None
) -> list[Path]:
    """Writes all files of a run into `folder`: what was found, how, and ``tables.json`` for a report to show it by.

    Args:
        folder: where; exists.
        study: the name of the study.
        config: its dataclass.
        command: the arguments of ``python -m experiments`` as given.
        result: what the run found.
        seconds: how long it took.

    Returns:
        The paths, ``result.json`` last: where it is, the rest is complete.
    """
    files = {f"{name}.png": _png(figure) for name, figure in result.figures.items()}
    shown = {
        "tables": [table._asdict() for table in result.tables],
        "figures": {name: plots.describe(figure) for name, figure in result.figures.items()},
    }
    files["tables.json"] = _json(shown)
    how = {"study": study, "flags": flags(config), "seconds": seconds, **circumstances(command, result.devices)}
    files["config.json"] = _json(how)
    files["result.json"] = _json({"study": study, **result.numbers})
    for name, content in files.items():
        save(folder / name, content)
    return [folder / name for name in files]


def save(path: Path, content: bytes) -> None:
    """Writes a file whole or not at all: who reads meanwhile sees the old one or the new one."""
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        part.write_bytes(content)
        os.replace(part, path)  # atomic on one file system
    finally:
        part.unlink(missing_ok=True)


def flags(config: Any) -> dict[str, Any]:
    """Every flag of a config dataclass, as JSON has it."""
    return plain(dataclasses.asdict(config))


def circumstances(command: Sequence[str], devices: Sequence[str] | None = None) -> dict[str, Any]:
    """The command, the versions of packages, the machine and the date; `devices` as in a `Result`."""
    if devices is None:
        devices = [f"{device.platform}: {device.device_kind}" for device in jax.devices()]
    return {
        "command": shlex.join(["python", "-m", "experiments", *command]),
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "versions": {
            "python": platform.python_version(),
            "jaxbptt": jb.__version__,
            **{package: version(package) for package in _PACKAGES},
        },
        "machine": {
            "system": platform.platform(),
            "processor": platform.machine(),
            "cores": os.cpu_count(),
            "devices": list(devices),
        },
    }


def version(package: str) -> str | None:
    """Of an installed distribution; ``None`` when it isn't there.

    >>> version("no-such-distribution") is None
    True
    """
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def plain(value: Any) -> Any:
    """The tree with JSON's own types: NumPy's and JAX's become lists and numbers, what is not finite becomes None.

    >>> plain({"norms": np.array([1.0, np.inf]), "steps": np.int32(3)})
    {'norms': [1.0, None], 'steps': 3}
    """
    if isinstance(value, Mapping):
        return {str(key): plain(entry) for key, entry in value.items()}
    if isinstance(value, (np.ndarray, np.generic, jax.Array)):
        return plain(np.asarray(value).tolist())
    if isinstance(value, (list, tuple)):
        return [plain(entry) for entry in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return os.fspath(value) if isinstance(value, Path) else value


def _json(tree):
    return (json.dumps(plain(tree), indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode()


def _png(figure):
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=200)
    return buffer.getvalue()
