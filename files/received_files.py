"""Files and folders that others made: only regular files are opened, and no link takes others along."""

import hashlib
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from errno import EINVAL
from io import BufferedReader
from pathlib import Path

from ..errors import FileError

PROMPT_FILE, PROMPT_KEY = "prompt.json", "thirteen.prompt"  # of an adapter: in its folder, in its GGUF
MORE_TEMPLATES = "additional_chat_templates"  # folder in that of a base, of chat templates beside the default


@contextmanager
def read_errors(path: Path) -> Iterator[None]:
    """Raise OSError from the block as a FileError that names `path`."""
    try:
        yield
    except OSError as failure:
        raise FileError(f"{path}: {failure.strerror or failure}") from None


def open_regular(path: Path) -> BufferedReader:
    """Open a file to read it."""
    file = open(path, "rb", opener=_open_at_once)  # noqa: SIM115 - the caller's
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise OSError(EINVAL, "not a regular file", str(path))
    return file


def _open_at_once(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def file_sha256(path: Path) -> str:
    """The SHA-256 of a file's bytes, in hexadecimal."""
    with open_regular(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check_links(folder: Path) -> None:
    """Refuse the folder of a model or an adapter if a link leads outside: its output would hold that file.

    Links of a snapshot in the hub's cache may lead to the blobs of its repository.

    Raises:
        FileError: a link leads outside, or the folder cannot be read.
    """
    root = Path(os.path.realpath(folder))
    inside = [root, *(folder.parent / "blobs" for folder in root.parents if folder.name == "snapshots")]
    with read_errors(folder):
        for path in (*folder.iterdir(), *folder.glob(f"{MORE_TEMPLATES}/*")):
            target = Path(os.path.realpath(path)) if path.is_symlink() else root
            if not any(map(target.is_relative_to, inside)):
                raise FileError(
                    f"{path}: leads outside the folder, to {target}: replace it by a copy, or delete it"
                )
