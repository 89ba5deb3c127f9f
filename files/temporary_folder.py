"""Temporary folders, by default in the cache: a model may be large. Those of killed processes are removed."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory

from .cache_folder import cache_dir
from .file_lock import LOCKS, lock_file
from .private_folder import sharing_problem

_LOCK = "lock"  # beside the files, held while they are in use


@contextmanager
def temporary_folder(prefix: str, parent: Path | None = None) -> Iterator[Path]:
    """Create a folder that only this user can reach, and that is removed when the block ends.

    Args:
        prefix: what its name begins with. Folders of this prefix whose process was killed are removed first.
        parent: folder to create it in; None for the cache.

    Raises:
        OutputError: the cache folder cannot be created.
    """
    parent = parent or cache_dir()
    _remove_left_over(parent, prefix)
    with TemporaryDirectory(prefix=f"{prefix}-", dir=parent) as name:
        outer = Path(name)
        inner = outer / "files"
        inner.mkdir()
        if not LOCKS:
            yield inner
            return
        new = outer / f"{_LOCK}.new"
        with new.open("xb") as lock:
            lock_file(lock)
            new.rename(outer / _LOCK)  # under this name it is never free while this process lives
            yield inner


def _remove_left_over(parent: Path, prefix: str) -> None:
    """Remove folders whose lock is free. One without a lock file may just have been created: it stays."""
    for lock in parent.glob(f"{prefix}-*/{_LOCK}"):
        with suppress(OSError):
            if sharing_problem(lock.parent):
                continue  # in a folder of others, the lock may be a pipe that never opens
            with lock.open("rb") as file:
                if lock_file(file, unsupported=False):
                    shutil.rmtree(lock.parent, ignore_errors=True)
