"""Folders that are removed when a block ends; those of killed processes are removed by the next."""

import os
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from pathlib import Path

from ..errors import OutputError
from .cache_folder import cache_dir
from .file_lock import NO_LINK, is_at, left_over, lock_file
from .output import output_errors

_CREATIONS = 100  # attempts; each fails only if another process cleans up at the same moment


def temporary_folder(prefix: str, parent: Path | None = None) -> AbstractContextManager[Path]:
    """Create a folder that only this user can reach, and that is removed when the block ends.

    Args:
        prefix: what its name begins with. Folders of this prefix whose process was killed are removed first.
        parent: folder to create it in; None for the cache, where a whole model has room.

    Raises:
        OutputError: it cannot be created.
    """
    return locked_folder(parent or cache_dir(), prefix, mode=0o700)


@contextmanager
def locked_folder(parent: Path, prefix: str, mode: int = 0o777) -> Iterator[Path]:
    """Create a folder under a random name, which is removed when the block ends, unless it was renamed.

    It is locked meanwhile. One whose lock is free was left by a process that was killed.

    Args:
        parent: where it is created.
        prefix: what its name begins with. Left-over folders of this prefix are removed first.
        mode: permissions of the folder, before the umask.

    Raises:
        OutputError: it cannot be created.
    """
    for left in left_over(parent, rf"{re.escape(prefix)}-[0-9a-f]{{16}}"):
        shutil.rmtree(left, ignore_errors=True)
    with ExitStack() as lock:
        with output_errors(parent):
            folder = _create(parent, prefix, mode, lock)
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)  # if that fails, it is the next process's work


def _create(parent: Path, prefix: str, mode: int, lock: ExitStack) -> Path:
    """Create the folder; `lock` holds it until it is closed."""
    for _ in range(_CREATIONS):
        folder = parent / f"{prefix}-{secrets.token_hex(8)}"
        folder.mkdir(mode)
        if os.name != "posix":
            return folder
        with ExitStack() as opened, suppress(FileNotFoundError):
            descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | NO_LINK)
            opened.callback(os.close, descriptor)
            if lock_file(descriptor) and is_at(descriptor, folder):
                lock.push(opened.pop_all())
                return folder
    raise OutputError(f"{parent}: other processes remove its temporary folders")
