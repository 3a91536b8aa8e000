"""Files of public data sets: given by path, or downloaded once into the user's cache, and known by their SHA-256.

Nothing here looks into a file. What can't be had is a `NoDataError` that says which step failed and what to do.
"""

import hashlib
import http.client
import os
import urllib.request
from pathlib import Path
from typing import NamedTuple

from experiments.kit import output
from experiments.kit.options import NoDataError

_SECONDS = 30  # without an answer
_MOST = 2**26  # bytes of a download


class Source(NamedTuple):
    """A file that everybody can have: what it is called, where it is, and the SHA-256 of its content."""

    name: str
    url: str
    sha256: str


def content(source: Source, path: Path | None = None) -> tuple[bytes, str]:
    """What the file holds, not yet checked when it was given by its path, and where it is in words.

    Args:
        source: which file.
        path: it, or the folder that it is in; ``None`` takes it from the cache, or else downloads and keeps it.

    Returns:
        ``(content, where)``; give both to `check`.

    Raises:
        NoDataError: when there is no such file, it can't be read, or can't be downloaded.
    """
    if path is not None:
        path = Path(path)
        path = path / source.name if path.is_dir() else path
        try:
            return path.read_bytes(), f"`{path}`"
        except OSError as error:
            raise NoDataError(f"`--data`: cannot read `{path}`: {error.strerror}. {_remedy(source)}") from error
    kept = cache() / source.name
    try:
        found = kept.read_bytes()
        if digest(found) == source.sha256:
            return found, f"`{kept}`"
    except OSError:
        pass  # not there yet; and what is damaged is fetched anew
    found = _download(source)
    where = f"what {source.url} sent"
    check(source, found, where)
    _keep(kept, found)
    return found, where


def check(source: Source, found: bytes, where: str) -> None:
    """Raises `NoDataError` unless this is the content of the file."""
    if digest(found) != source.sha256:
        begins = f"its SHA-256 begins {digest(found)[:12]}, not {source.sha256[:12]}"
        raise NoDataError(f"{where} is not the published {source.name}: {begins}. {_remedy(source)}")


def digest(found: bytes) -> str:
    """The SHA-256, as ``sha256sum`` prints it.

    >>> digest(b"")[:16]
    'e3b0c44298fc1c14'
    """
    return hashlib.sha256(found).hexdigest()


def cache() -> Path:
    """The user's folder for what was downloaded, by the XDG base directory specification."""
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "jaxbptt"
    except RuntimeError as error:  # a user without a home
        remedy = "set XDG_CACHE_HOME, or give the file with `--data PATH`"
        raise NoDataError(f"there is no home folder to keep a download in: {remedy}") from error


def _download(source):
    try:
        with urllib.request.urlopen(source.url, timeout=_SECONDS) as answer:
            return answer.read(_MOST)
    except (OSError, http.client.HTTPException) as error:  # urllib's own errors are among the first
        reason = getattr(error, "reason", None) or error
        raise NoDataError(f"cannot download {source.name} ({reason}). {_remedy(source)}") from error


def _keep(path, found):
    """A cache that can't be written to costs a download the next time, nothing else."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        output.save(path, found)
    except OSError:
        return


def _remedy(source):
    return f"Download {source.url} and give it with `--data PATH`"
