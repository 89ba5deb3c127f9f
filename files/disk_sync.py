"""Flushes files and the names in folders to disk."""

import os
from errno import EACCES, EBADF, EINVAL, ENOTSUP
from pathlib import Path

_POSIX = os.name == "posix"
_NO_FOLDER_SYNC = (EACCES, EBADF, EINVAL, ENOTSUP)  # of file systems that cannot sync a folder


def sync_folder(folder: Path) -> None:
    """Flush the names in a folder to disk, where the system can.

    Raises:
        OSError: the disk failed.
    """
    if not _POSIX:
        return
    try:
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        if error.errno not in _NO_FOLDER_SYNC:
            raise


def sync_tree(folder: Path) -> None:
    """Flush the files in a folder and in those within it, and their names, to disk.

    Raises:
        OSError: the disk failed, or a file cannot be opened.
    """
    for path in folder.iterdir():
        if path.is_dir():
            sync_tree(path)
            continue
        with path.open("rb+") as file:
            os.fsync(file.fileno())
    sync_folder(folder)
