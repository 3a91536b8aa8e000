"""Files of public data sets: given by path, or downloaded once into the user's cache, and known by their SHA-256.

Nothing here looks into a file. What can't be had is a `NoDataError` that says which step failed and what to do.
"""

import hashlib
import logging
import tempfile
from pathlib import Path
from typing import Any, NamedTuple, cast

from experiments.kit import output
from experiments.kit.options import BadInputError, NoDataError

_SECONDS = 30  # without an answer


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
    with tempfile.TemporaryDirectory() as instead:
        kept = _retrieved(source, _folder(source, Path(instead)))
        return kept.read_bytes(), f"`{kept}`"


def check(source: Source, found: bytes, where: str) -> None:
    """Raises `NoDataError` unless this is the content of the file."""
    digest = hashlib.sha256(found).hexdigest()
    if digest != source.sha256:
        begins = f"its SHA-256 begins {digest[:12]}, not {source.sha256[:12]}"
        raise NoDataError(f"{where} is not the published {source.name}: {begins}. {_remedy(source)}")


def cache() -> Path:
    """The user's folder for what was downloaded."""
    import pooch

    folder = Path(pooch.os_cache("jaxbptt"))
    if not folder.is_absolute():  # a user without a home
        remedy = "set XDG_CACHE_HOME, or give the file with `--data PATH`"
        raise NoDataError(f"there is no home folder to keep a download in: {remedy}")
    return folder


def _folder(source, instead):
    """The cache; or `instead` where that can't be written to, which costs a download the next time, nothing else."""
    folder = cache()
    try:
        if not (folder / source.name).exists():
            output.prepare(folder)
    except (BadInputError, OSError):
        return instead
    return folder


def _retrieved(source, folder):
    import pooch

    pooch.get_logger().setLevel(logging.WARNING)  # a run says for itself what it does
    known, how = f"sha256:{source.sha256}", cast(Any, pooch.HTTPDownloader(timeout=_SECONDS))
    try:
        return Path(pooch.retrieve(source.url, known, source.name, folder, downloader=how))
    except OSError as error:
        raise NoDataError(f"cannot download {source.name} ({error}). {_remedy(source)}") from error
    except ValueError as error:  # another SHA-256
        raise NoDataError(f"what {source.url} sent is not the published {source.name}. {_remedy(source)}") from error


def _remedy(source):
    return f"Download {source.url} and give it with `--data PATH`"
