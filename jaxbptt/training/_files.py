"""The file system, as this library itself uses it; orbax and tensorboardX write files of their own. Nothing here knows
what is written.
"""

import contextlib
import hashlib
import os
import pathlib
import shutil
import stat
from collections.abc import Iterator

NO_FILE = "not a file"
_LOCKED: dict = {}  # by this process, whose threads a lock of the kernel's does not tell apart


def write(path: pathlib.Path, content: bytes) -> None:
    """The whole file or none of it: a reader, and a kill at any moment, see the old one or the new one."""
    part = path.with_name(path.name + ".part")
    with open(part, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    os.replace(part, path)
    _sync(path.parent)


def append(path: pathlib.Path, at: int, content: bytes) -> int:
    """Adds to a file that is `at` bytes long, cutting off whatever stands behind; returns the new length.

    One call of the system and one line of content, so a reader sees whole lines.
    """
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    try:
        length = os.fstat(descriptor).st_size
        if length > at:
            os.truncate(descriptor, at)
        written = os.write(descriptor, content)
        if written < len(content):  # the disk became full within it: the second call says so
            os.write(descriptor, content[written:])
        return min(length, at) + len(content)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def locked(path: pathlib.Path) -> Iterator[bool]:
    """Holds a file, made where there is none, for this one alone; False when another has it, of this process or not.

    The kernel lets go of it when the process dies, and a fork of it does not have it. (It lets go as well when this
    process closes the file elsewhere: nothing else here opens it.) Where there can be no such file, or the file system
    knows no locks, nothing is held.
    """
    try:
        import fcntl
    except ImportError:  # there is none on Windows
        yield True
        return
    name, mark, ours = os.path.realpath(path), object(), True
    with contextlib.ExitStack() as held:
        if _LOCKED.setdefault(name, mark) is not mark:
            yield False
            return
        held.callback(_LOCKED.pop, name)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
            held.callback(os.close, descriptor)
            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            ours = not isinstance(error, BlockingIOError)
        yield ours


def length(path: pathlib.Path) -> int:
    """Bytes; 0 for a file that is not there."""
    return path.stat().st_size if path.exists() else 0


def read(path: pathlib.Path) -> bytes:
    """All of it."""
    return path.read_bytes()


def new_folder(path: pathlib.Path) -> pathlib.Path:
    """An empty one, where nothing is yet."""
    path.mkdir(parents=True)
    _sync(path.parent)
    return path


def replace(folder: pathlib.Path, path: pathlib.Path, aside: pathlib.Path) -> None:
    """Gives a folder another name; what had it goes `aside`, then away. All three lie in the same folder."""
    if path.is_dir() and not path.is_symlink():  # no folder can be put in the place of one that holds something
        os.replace(path, aside)
    else:
        path.unlink(missing_ok=True)
    os.replace(folder, path)
    _sync(path.parent)
    discard(aside)


def remove(path: pathlib.Path) -> None:
    """A folder or a file, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def discard(path: pathlib.Path) -> None:
    """The same, as far as the disk lets it."""
    with contextlib.suppress(OSError):
        remove(path)


def names(path: pathlib.Path) -> list[str]:
    """Of what is in a folder; none when there is no folder."""
    return sorted(entry.name for entry in path.iterdir()) if path.is_dir() else []


def exists(path: pathlib.Path) -> bool:
    """Whether it is there."""
    return path.exists()


def digests(folder: pathlib.Path, sync: bool = False) -> dict[str, str]:
    """SHA-256 of every file below `folder`, by path relative to it; of a link or a device, that it is one.

    Args:
        folder: where.
        sync: whether the content is to reach the disk before this returns.
    """
    found = {}
    for path in sorted(folder.rglob("*")):
        mode = path.lstat().st_mode
        name = path.relative_to(folder).as_posix()
        if stat.S_ISREG(mode):
            with open(path, "rb") as file:
                found[name] = hashlib.file_digest(file, "sha256").hexdigest()
                if sync:
                    os.fsync(file.fileno())
        elif not stat.S_ISDIR(mode):
            found[name] = NO_FILE
        elif sync:
            _sync(path)
    return found


def _sync(folder):
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
