"""Temporary folders in the cache, which may hold a whole model; those of killed processes are removed."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory

from .cache_folder import cache_dir
from .file_lock import LOCKS, lock_file

_LOCK = "lock"  # beside the files, held while they are in use


@contextmanager
def temporary_folder(prefix: str) -> Iterator[Path]:
    """Create a folder in the cache that is removed when the block ends.

    Args:
        prefix: what its name begins with. Folders of this prefix whose process was killed are removed first.

    Raises:
        OutputError: the cache folder cannot be created.
    """
    _remove_left_over(prefix)
    with TemporaryDirectory(prefix=f"{prefix}-", dir=cache_dir()) as name:
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


def _remove_left_over(prefix: str) -> None:
    """Remove folders whose lock is free. One without a lock file may just have been created: it stays."""
    for lock in cache_dir().glob(f"{prefix}-*/{_LOCK}"):
        with suppress(OSError), lock.open("rb") as file:
            if lock_file(file, unsupported=False):
                shutil.rmtree(lock.parent, ignore_errors=True)
