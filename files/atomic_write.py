"""Atomic writes: a file appears under its name when it is complete and on disk, or not at all."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from ..errors import OutputError
from .file_lock import create_locked, left_over
from .output import output_errors, sync_folder

_POSIX = os.name == "posix"
_NEW = os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
_PART = r"\..+\.[0-9a-f]{16}\.part"


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
