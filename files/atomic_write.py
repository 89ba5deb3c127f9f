"""Atomic writes: a file appears under its name when it is complete and on disk, or not at all."""

import os
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from ..errors import OutputError
from .disk_sync import sync_folder
from .file_lock import LOCKS, is_at, lock_file
from .output import output_errors

_POSIX = os.name == "posix"
NO_LINK = getattr(os, "O_NOFOLLOW", 0)  # a link planted under the part's name is not written through
_CREATIONS = 100  # attempts; each fails only if another process cleans up at the same moment
_RANDOM_PART = re.compile(r"\..+\.[0-9a-f]{16}\.part")


@contextmanager
def atomic_write(
    target: Path, *, exclusive: bool = False, nbytes: int = 0, mode: int = 0o666, sync: bool = True
) -> Iterator[BinaryIO]:
    """Open a part file next to `target` that takes its name when the block ends without an error.

    The part file is created, never reused, and locked while it is written. A part whose lock is free was left
    by a process that was killed: it is removed by the next write into its folder.

    Args:
        target: the file to write or replace.
        exclusive: refuse a second writer at the same time. The part file then has one name for all processes;
            otherwise its name is random.
        nbytes: size of the file, if known. The disk must have this much space.
        mode: permissions of the file, before the umask.
        sync: flush the file to disk before it is renamed, and its folder afterwards. False is for caches that
            check what they read.

    Yields:
        The part file, open for reading and writing, empty. Its path is its `name`.

    Raises:
        OutputError: the file cannot be written, or another process is writing it.
    """
    if not target.name:
        raise OutputError(f"{target}: is a folder, not a file")
    with output_errors(target):
        file = _create_exclusive(target, mode) if exclusive else _create_random(target, mode)
        part = Path(file.name)
        try:
            with file:
                try:
                    _check_space(target, nbytes)
                    yield file
                    file.flush()
                    if sync:
                        os.fsync(file.fileno())
                    if _POSIX:  # under the lock: a part that is closed and unlocked counts as left over
                        _check_own(file, part, target)
                        part.replace(target)
                except BaseException:
                    _remove_own(file, part)
                    raise
            if not _POSIX:  # Windows cannot rename an open file
                part.replace(target)
        except BaseException:
            if not _POSIX:
                _remove(part)
            raise
        if sync:
            sync_folder(target.absolute().parent)


def _create_random(target: Path, mode: int) -> BinaryIO:
    """Create a part file under a random name, and lock it."""
    _remove_left_over(target.absolute().parent)
    for _ in range(_CREATIONS):
        part = target.with_name(f".{target.name}.{secrets.token_hex(8)}.part")
        file = _create(part, mode)
        if lock_file(file) and is_at(file.fileno(), part):
            return file
        file.close()  # another process took it for left over, between its creation and its lock
    raise OutputError(f"{target}: other processes remove its part files")


def _create_exclusive(target: Path, mode: int) -> BinaryIO:
    """Create the part file that all processes know, and lock it; a part that is left over is removed."""
    part = target.with_name(f".{target.name}.part")
    if os.path.lexists(part):
        with _open_existing(part) as old:
            _lock(old, part, target)
            if _POSIX:  # under the lock
                _remove(part)
        if not _POSIX:  # Windows cannot remove an open file
            _remove(part)
    try:
        file = _create(part, mode)
    except FileExistsError:
        raise OutputError(f"{target}: another process is writing it") from None
    try:
        _lock(file, part, target)
    except BaseException:
        file.close()
        raise
    return file


def _create(part: Path, mode: int) -> BinaryIO:
    return open(part, "xb+", opener=lambda path, flags: os.open(path, flags | NO_LINK, mode))


def _open_existing(part: Path) -> BinaryIO:
    return open(part, "rb+", opener=lambda path, flags: os.open(path, flags | NO_LINK))


def _lock(file: BinaryIO, part: Path, target: Path) -> None:
    if not lock_file(file):
        raise OutputError(f"{target}: another process is writing it")
    # A writer that finished between our opening and locking has renamed this very file to the target.
    if not is_at(file.fileno(), part):
        raise OutputError(f"{target}: another process has just written it")


def _remove_left_over(folder: Path) -> None:
    """Remove the parts with random names that no process has locked. Without locks nobody can tell."""
    if not LOCKS:
        return
    with suppress(OSError):
        parts = [Path(entry) for entry in os.scandir(folder) if _RANDOM_PART.fullmatch(entry.name)]
        for part in parts:
            with suppress(OSError), _open_existing(part) as file:
                if lock_file(file, unsupported=False) and is_at(file.fileno(), part):
                    part.unlink()


def _check_own(file: BinaryIO, part: Path, target: Path) -> None:
    """Without locks another writer takes the part for left over, and creates its own under the same name."""
    if not is_at(file.fileno(), part):
        raise OutputError(f"{target}: another process is writing it")


def _remove_own(file: BinaryIO, part: Path) -> None:
    """Remove a part that is open, but not another writer's; Windows cannot remove it yet."""
    with suppress(OSError):
        if is_at(file.fileno(), part):
            part.unlink()


def _remove(part: Path) -> None:
    with suppress(OSError):
        part.unlink()


def _check_space(target: Path, nbytes: int) -> None:
    free = shutil.disk_usage(target.absolute().parent).free
    if free < nbytes:
        raise OutputError(f"{target}: needs {nbytes:,} bytes, but {free:,} are free on its disk")
