"""The files and folders that a command writes: their checks and errors, and how they get to disk.

Writes are atomic: a file appears under its name when it is complete and on disk, or not at all.
"""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from errno import EACCES, EBADF, EINVAL, ENOTSUP
from pathlib import Path
from typing import BinaryIO

from ..errors import OptionError, OutputError
from .file_lock import create_locked, left_over

_NO_FOLDER_SYNC = (EACCES, EBADF, EINVAL, ENOTSUP)  # of file systems that cannot sync a folder
_POSIX = os.name == "posix"
_NEW = os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
_PART = r"\..+\.[0-9a-f]{16}\.part"


@contextmanager
def output_errors(path: Path) -> Iterator[None]:
    """Raise OSError from the block as an OutputError that names `path`."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or next(iter(str(error).splitlines()), type(error).__name__)
        raise OutputError(f"{path}: cannot write: {reason}") from None


def make_folder(folder: Path) -> None:
    """Create a folder and its parents unless they exist, and flush the new names to disk."""
    with output_errors(folder):
        new = [path for path in (folder.absolute(), *folder.absolute().parents) if not path.exists()]
        folder.mkdir(parents=True, exist_ok=True)
        for path in new:
            sync_folder(path.parent)


@contextmanager
def output_folder(folder: Path) -> Iterator[None]:
    """Create a folder unless it exists; if the block fails, a new one that is still empty is removed."""
    new = not folder.exists()
    make_folder(folder)
    try:
        yield
    except BaseException:
        if new:
            with suppress(OSError):  # it is not empty
                folder.rmdir()
        raise


def check_folder(folder: Path) -> None:
    """Raise OutputError if files cannot be written to `folder`, which may not exist yet."""
    existing = next(parent for parent in (folder.absolute(), *folder.absolute().parents) if parent.exists())
    if not existing.is_dir():
        raise OutputError(f"{folder}: {existing} is a file, not a folder")
    if not os.access(existing, os.W_OK):
        raise OutputError(f"{folder}: the folder {existing} cannot be written to")


def check_empty(folder: Path) -> None:
    """Raise OutputError if `folder` exists and is not an empty folder."""
    check_folder(folder)
    if folder.exists() and any(folder.iterdir()):
        raise OutputError(f"{folder}: the folder is not empty: choose another")


def check_target(target: Path, *sources: Path, replace: bool = True) -> None:
    """Raise ThirteenError if `target` cannot be written, is one of the `sources`, or may not be replaced.

    Commands call it before their work. A folder among `sources` may receive a new file or replace a GGUF, but
    keeps its own files.
    """
    folder = target.absolute().parent
    if not target.name or target.is_dir():
        raise OutputError(f"{target}: is a folder, not a file")
    if target.exists():
        if not target.is_file():
            raise OutputError(f"{target}: is not a regular file")
        for source in sources:
            own = source.is_dir() and target.suffix != ".gguf" and folder.samefile(source)
            if own or (source.is_file() and target.samefile(source)):
                raise OutputError(f"{target}: is an input of this command: choose another name")
        if not replace:
            raise OptionError("output", "exists already; {replace} overwrites it", target)
    if not folder.exists():
        raise OutputError(f"{target}: the folder {folder} does not exist")
    check_folder(folder)


def sync_folder(folder: Path) -> None:
    """Flush the names in a folder to disk, where the system can."""
    if os.name != "posix":
        return
    try:
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        if error.errno not in _NO_FOLDER_SYNC:
            raise


def sync_tree(folder: Path) -> None:
    """Flush the files in a folder and in those within it, and their names, to disk."""
    for path in folder.iterdir():
        if path.is_dir():
            sync_tree(path)
            continue
        with path.open("rb+") as file:
            os.fsync(file.fileno())
    sync_folder(folder)


@contextmanager
def atomic_write(target: Path, *, nbytes: int = 0, mode: int = 0o666) -> Iterator[BinaryIO]:
    """Open a part file next to `target` that takes its name when the block ends without an error.

    The part file has a random name and is locked while it is written. A part whose lock is free was left by a
    process that was killed: it is removed by the next write into its folder. Of several writers of one target
    at the same time, each writes a part of its own, and the last one that ends stays.

    Args:
        target: the file to write or replace.
        nbytes: size of the file, if known. The disk must have this much space.
        mode: permissions of the file, before the umask.

    Yields:
        The part file, open for reading and writing, empty. Its path is its `name`.
    """
    if not target.name:
        raise OutputError(f"{target}: is a folder, not a file")
    with output_errors(target):
        target = Path(os.path.realpath(target))  # a link stays one
        file = _create_locked(target, mode)
        part = Path(file.name)
        try:
            with file:
                _check_space(target, nbytes)
                yield file
                file.flush()
                os.fsync(file.fileno())
                if _POSIX:  # under the lock: a part that is closed and unlocked counts as left over
                    part.replace(target)
            if not _POSIX:  # Windows cannot rename an open file
                part.replace(target)
        except BaseException:
            with suppress(OSError):
                part.unlink()
            raise
        sync_folder(target.absolute().parent)


def write_file(target: Path, content: bytes) -> None:
    """Write a whole file as atomic_write() does."""
    with atomic_write(target) as file:
        file.write(content)


def _create_locked(target: Path, mode: int) -> BinaryIO:
    """Create a part file under a random name, and lock it."""
    for part in left_over(target.absolute().parent, _PART):
        with suppress(OSError):
            part.unlink()
    part, descriptor = create_locked(
        lambda random: target.with_name(f".{target.name}.{random}.part"),
        lambda path: os.open(path, _NEW, mode),
    )
    return open(part, "rb+", opener=lambda *_: descriptor)


def _check_space(target: Path, nbytes: int) -> None:
    free = shutil.disk_usage(target.absolute().parent).free
    if free < nbytes:
        raise OutputError(f"{target}: needs {nbytes:,} bytes, but {free:,} are free on its disk")
