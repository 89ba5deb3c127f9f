"""Exclusive lock on an open file, held until the file is closed."""

from typing import IO

try:
    import fcntl
except ImportError:  # Windows, where nothing is locked
    fcntl = None  # type: ignore[assignment]

LOCKS = fcntl is not None


def lock_file(file: IO[bytes], *, wait: bool = False, unsupported: bool = True) -> bool:
    """Lock a file against other processes that lock it; without support for locks nothing is locked.

    Args:
        file: an open file.
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
