"""Exclusive lock on an open file or folder, held until it is closed.

Part files, journals and temporary folders are locked themselves, so that a killed process leaves nothing
else. The package filelock locks a file of its own beside what is meant. On Windows nothing is locked.
"""

import os
import re
import secrets
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import IO

try:
    import fcntl
except ImportError:  # Windows, where nothing is locked
    fcntl = None  # type: ignore[assignment]

from ..errors import OutputError

NO_LINK = getattr(os, "O_NOFOLLOW", 0)  # a link planted under a known name is not followed
_CREATIONS = 100  # attempts; each fails only if another process cleans up at the same moment


def lock_file(file: IO[bytes] | int, *, unsupported: bool = True) -> bool:
    """Lock a file against other processes that lock it; without support for locks nothing is locked.

    Returns:
        Whether the lock was taken; False if another process holds it.
    """
    if fcntl is None:
        return unsupported
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # some network file systems
        return unsupported
    return True


def is_at(descriptor: int, path: Path) -> bool:
    """Whether a path still names what is open, and not what has taken its place."""
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


def create_locked(named: Callable[[str], Path], create: Callable[[Path], int]) -> tuple[Path, int]:
    """Create a file or a folder under a random name, and lock it.

    Returns:
        The path, and the descriptor that holds the lock.

    Raises:
        OSError: it cannot be created.
        OutputError: other processes removed each one at once.
    """
    for left in reversed(range(_CREATIONS)):
        path = named(secrets.token_hex(8))
        try:
            descriptor = create(path)
        except FileNotFoundError:
            if not left or not path.parent.exists():
                raise
            continue  # it was removed before it was open
        if descriptor < 0 or (lock_file(descriptor) and is_at(descriptor, path)):
            return path, descriptor
        os.close(descriptor)
    raise OutputError(f"{path}: other processes remove such files at once")
