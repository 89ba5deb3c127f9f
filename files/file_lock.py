"""Exclusive lock of a path between processes, by a lock file next to it that goes when the lock is released.

A killed process leaves the lock file, empty and unlocked; the next one to lock the path takes it over.
"""

import errno
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # slow to import, so only to lock
    from filelock import BaseFileLock

_UNSUPPORTED = {errno.ENOLCK, errno.ENOTSUP}  # some network file systems


class PathLock:
    """A lock of one path, which need not exist. Without support of the file system nothing is locked."""

    def __init__(self, path: Path) -> None:
        """Name the path; nothing is locked yet."""
        self._file = path.with_name(f".{path.name}.lock")
        self._lock: BaseFileLock | None = None

    def acquire(self, *, wait: bool = False) -> bool:
        """Lock the path against other processes, and other locks of this one.

        Args:
            wait: wait until it is free.

        Returns:
            Whether the lock was taken; False if another holds it.

        Raises:
            OSError: the lock file cannot be created.
        """
        from filelock import FileLock, Timeout  # noqa: PLC0415

        lock = FileLock(self._file, timeout=-1 if wait else 0, thread_local=False)
        try:
            lock.acquire()
        except Timeout:
            return False
        except OSError as error:
            if error.errno not in _UNSUPPORTED:
                raise
            self._file.unlink(missing_ok=True)
            return True
        self._lock = lock
        return True

    def release(self) -> None:
        """Unlock the path, if it is locked."""
        if self._lock is not None:
            # Under the lock: whoever waits for a file that has lost its name opens the next one. Windows
            # refuses to remove an open file; there, filelock removes it.
            with suppress(OSError):
                self._file.unlink()
            self._lock.release()
            self._lock = None

    @contextmanager
    def held(self) -> Iterator[None]:
        """Wait for the lock, and hold it for the block."""
        self.acquire(wait=True)
        try:
            yield
        finally:
            self.release()
