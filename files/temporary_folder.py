"""Folders that are removed when a block ends; those of killed processes are removed by the next."""

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

from .cache_folder import cache_dir
from .file_lock import NO_LINK, create_locked, left_over
from .output import output_errors


@contextmanager
def temporary_folder(prefix: str, parent: Path | None = None, mode: int = 0o700) -> Iterator[Path]:
    """Create a folder under a random name, which is removed when the block ends, unless it was renamed.

    By default it is in the cache, and only this user can reach it. It is locked meanwhile. One whose lock is
    free was left by a process that was killed.
    """
    parent = parent or cache_dir()
    for left in left_over(parent, rf"{re.escape(prefix)}-[0-9a-f]{{16}}"):
        shutil.rmtree(left, ignore_errors=True)
    with ExitStack() as lock:
        with output_errors(parent):
            folder, descriptor = create_locked(
                lambda random: parent / f"{prefix}-{random}", partial(_create, mode=mode)
            )
        if descriptor >= 0:
            lock.callback(os.close, descriptor)
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)  # if that fails, it is the next process's work


def _create(folder: Path, mode: int) -> int:
    """Create a folder, and open it; -1 on Windows, which opens no folders."""
    folder.mkdir(mode)
    return os.open(folder, os.O_RDONLY | os.O_DIRECTORY | NO_LINK) if os.name == "posix" else -1
