"""Atomic writes: a file appears under its name when it is complete and on disk, or not at all."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from threading import get_ident
from typing import BinaryIO

from ..errors import OutputError
from .file_lock import PathLock
from .output import output_errors

_POSIX = os.name == "posix"
_NO_LINK = getattr(os, "O_NOFOLLOW", 0)  # a link planted under the part's name is not written through


@contextmanager
def atomic_write(
    target: Path, *, exclusive: bool = False, nbytes: int = 0, mode: int = 0o666, sync: bool = True
) -> Iterator[BinaryIO]:
    """Open a part file next to `target` that takes its name when the block ends without an error.

    Args:
        target: the file to write or replace.
        exclusive: refuse a second writer at the same time. The part file then has one name for all processes,
            so a part that a killed process left is reused; otherwise its name holds process and thread.
        nbytes: size of the file, if known. The disk must have this much space.
        mode: permissions of the file, before the umask.
        sync: flush the file to disk before it is renamed. False is for caches that check what they read.

    Yields:
        The part file, open for reading and writing, empty. Its path is its `name`.

    Raises:
        OutputError: the file cannot be written, or another process is writing it.
    """
    infix = "" if exclusive else f"{os.getpid()}-{get_ident()}."
    part = target.with_name(f".{target.name}.{infix}part")
    with output_errors(target), _only_writer(target) if exclusive else nullcontext():
        file = open(part, "wb+", opener=lambda path, flags: os.open(path, flags | _NO_LINK, mode))  # noqa: SIM115
        try:
            with file:
                _check_space(target, nbytes)
                yield file
                file.flush()
                if sync:
                    os.fsync(file.fileno())
            part.replace(target)  # after it is closed: Windows cannot rename an open file
        except BaseException:
            with suppress(OSError):
                part.unlink()
            raise
        if sync:
            _sync_folder(target.absolute().parent)


@contextmanager
def _only_writer(target: Path) -> Iterator[None]:
    lock = PathLock(target)
    if not lock.acquire():
        raise OutputError(f"{target}: another process is writing it")
    try:
        yield
    finally:
        lock.release()


def _check_space(target: Path, nbytes: int) -> None:
    free = shutil.disk_usage(target.absolute().parent).free
    if free < nbytes:
        raise OutputError(f"{target}: needs {nbytes:,} bytes, but {free:,} are free on its disk")


def _sync_folder(folder: Path) -> None:
    if _POSIX:
        with suppress(OSError):  # some file systems refuse it; the file itself is on disk
            descriptor = os.open(folder, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
