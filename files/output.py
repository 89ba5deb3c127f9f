"""The files and folders that a command writes: their checks and errors, and how they get to disk."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from errno import EACCES, EBADF, EINVAL, ENOTSUP
from pathlib import Path

from ..errors import OptionError, OutputError

_NO_FOLDER_SYNC = (EACCES, EBADF, EINVAL, ENOTSUP)  # of file systems that cannot sync a folder


@contextmanager
def output_errors(path: Path) -> Iterator[None]:
    """Raise OSError from the block as an OutputError that names `path`."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or next(iter(str(error).splitlines()), type(error).__name__)
        raise OutputError(f"{path}: cannot write: {reason}") from None


def make_folder(folder: Path) -> None:
    """Create a folder and its parents unless they exist, and flush the new names to disk."""
    with output_errors(folder):
        new = [path for path in (folder.absolute(), *folder.absolute().parents) if not path.exists()]
        folder.mkdir(parents=True, exist_ok=True)
        for path in new:
            sync_folder(path.parent)


@contextmanager
def output_folder(folder: Path) -> Iterator[None]:
    """Create a folder unless it exists; if the block fails, a new one that is still empty is removed."""
    new = not folder.exists()
    make_folder(folder)
    try:
        yield
    except BaseException:
        if new:
            with suppress(OSError):  # it is not empty
                folder.rmdir()
        raise


def check_folder(folder: Path) -> None:
    """Raise OutputError if files cannot be written to `folder`, which may not exist yet."""
    existing = next(parent for parent in (folder.absolute(), *folder.absolute().parents) if parent.exists())
    if not existing.is_dir():
        raise OutputError(f"{folder}: {existing} is a file, not a folder")
    if not os.access(existing, os.W_OK):
        raise OutputError(f"{folder}: the folder {existing} cannot be written to")


def check_empty(folder: Path) -> None:
    """Raise OutputError if `folder` exists and is not an empty folder."""
    check_folder(folder)
    if folder.exists() and any(folder.iterdir()):
        raise OutputError(f"{folder}: the folder is not empty: choose another")


def check_target(target: Path, *sources: Path, replace: bool = True) -> None:
    """Raise ThirteenError if `target` cannot be written, is one of the `sources`, or may not be replaced.

    Commands call it before their work. A folder among `sources` may receive a new file or replace a GGUF, but
    keeps its own files.
    """
    folder = target.absolute().parent
    if not target.name or target.is_dir():
        raise OutputError(f"{target}: is a folder, not a file")
    if target.exists():
        if not target.is_file():
            raise OutputError(f"{target}: is not a regular file")
        for source in sources:
            own = source.is_dir() and target.suffix != ".gguf" and folder.samefile(source)
            if own or (source.is_file() and target.samefile(source)):
                raise OutputError(f"{target}: is an input of this command: choose another name")
        if not replace:
            raise OptionError("output", "exists already; {replace} overwrites it", target)
    if not folder.exists():
        raise OutputError(f"{target}: the folder {folder} does not exist")
    check_folder(folder)


def sync_folder(folder: Path) -> None:
    """Flush the names in a folder to disk, where the system can."""
    if os.name != "posix":
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
    """Flush the files in a folder and in those within it, and their names, to disk."""
    for path in folder.iterdir():
        if path.is_dir():
            sync_tree(path)
            continue
        with path.open("rb+") as file:
            os.fsync(file.fileno())
    sync_folder(folder)
