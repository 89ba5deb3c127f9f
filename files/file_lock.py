"""Exclusive lock on an open file or folder, held until it is closed."""

import os
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import IO

try:
    import fcntl
except ImportError:  # Windows, where nothing is locked
    fcntl = None  # type: ignore[assignment]

NO_LINK = getattr(os, "O_NOFOLLOW", 0)  # a link planted under a known name is not followed


def lock_file(file: IO[bytes] | int, *, wait: bool = False, unsupported: bool = True) -> bool:
    """Lock a file against other processes that lock it; without support for locks nothing is locked.

    Args:
        file: an open file, or the descriptor of one or of a folder.
        wait: wait until the file is free.
        unsupported: what is returned where the system or the file system has no locks.

    Returns:
        Whether the lock was taken; False if another process holds it.
    """
    if fcntl is None:
        return unsupported
    try:
        fcntl.flock(file, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # some network file systems
        return unsupported
    return True


def is_at(descriptor: int, path: Path) -> bool:
    """Whether a path still names what is open, and not what has taken its place.

    Raises:
        OSError: the path cannot be examined.
    """
    try:
        return os.path.samestat(path.stat(follow_symlinks=False), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def left_over(folder: Path, name: str) -> Iterator[Path]:
    """Files and folders, by a regex of their name, that no process has locked; the caller has them locked.

    A process that was killed left them. Without locks nobody can tell, and there are none.
    """
    with suppress(OSError):
        for path in [Path(entry) for entry in os.scandir(folder) if re.fullmatch(name, entry.name)]:
            with suppress(OSError):
                descriptor = os.open(path, os.O_RDONLY | NO_LINK | getattr(os, "O_NONBLOCK", 0))
                try:
                    if lock_file(descriptor, unsupported=False) and is_at(descriptor, path):
                        yield path
                finally:
                    os.close(descriptor)
