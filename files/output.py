"""The files and folders that a command writes: their checks and errors, and how they get to disk.

Writes are atomic: a file appears under its name when it is complete and on disk, or not at all.
"""

import os
import re
import secrets
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from ..errors import OptionError, OutputError

_PART = r"\..+\.[0-9a-f]{16}\.part"
_LEFT_OVER_S = 7 * 86400  # no command runs so long without a change of its temporary files


@contextmanager
def output_errors(path: Path) -> Iterator[None]:
    """Raise OSError from the block as an OutputError that names `path`."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or next(iter(str(error).splitlines()), type(error).__name__)
        raise OutputError(f"{path}: cannot write: {reason}") from None


def make_folder(folder: Path) -> None:
    """Create a folder and its parents unless they exist."""
    with output_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)


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


@contextmanager
def atomic_write(target: Path, *, nbytes: int = 0, mode: int = 0o666) -> Iterator[BinaryIO]:
    """Open a part file next to `target` that takes its name when the block ends without an error.

    The part file has a random name: of several writers of one target at the same time, each writes a part of
    its own, and the last one that ends stays. What a killed process left, a later write into its folder
    removes.

    Args:
        target: the file to write or replace.
        nbytes: size of the file, if known. The disk must have this much space.
        mode: permissions of the file, before the umask.

    Yields:
        The part file, open for reading and writing, empty. Its path is its `name`.
    """
    if not target.name:
        raise OutputError(f"{target}: is a folder, not a file")
    with output_errors(target):
        target = Path(os.path.realpath(target))  # a link stays one
        remove_left_over(target.parent, _PART)
        part = target.with_name(f".{target.name}.{secrets.token_hex(8)}.part")
        try:
            with open(part, "xb+", opener=lambda path, flags: os.open(path, flags, mode)) as file:
                _check_space(target, nbytes)
                yield file
                file.flush()
                os.fsync(file.fileno())
            part.replace(target)
        except BaseException:
            with suppress(OSError):
                part.unlink()
            raise


def write_file(target: Path, content: bytes) -> None:
    """Write a whole file as atomic_write() does."""
    with atomic_write(target) as file:
        file.write(content)


def remove_left_over(folder: Path, name: str) -> None:
    """Remove the files and folders, by a regex of their names, that a killed process left: old ones."""
    with suppress(OSError):
        for path in [Path(entry) for entry in os.scandir(folder) if re.fullmatch(name, entry.name)]:
            if path.stat().st_mtime < time.time() - _LEFT_OVER_S:
                shutil.rmtree(path) if path.is_dir() else path.unlink()


def _check_space(target: Path, nbytes: int) -> None:
    free = shutil.disk_usage(target.absolute().parent).free
    if free < nbytes:
        raise OutputError(f"{target}: needs {nbytes:,} bytes, but {free:,} are free on its disk")
