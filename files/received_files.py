"""Files and folders that others made: what is opened is a regular file, and no link takes another one along."""

import os
import stat
from errno import EINVAL
from pathlib import Path
from typing import BinaryIO

from ..errors import FileError

MORE_TEMPLATES = "additional_chat_templates"  # folder in that of a base, of chat templates beside the default


def open_regular(path: Path) -> BinaryIO:
    """Open a file to read it.

    Raises:
        OSError: it cannot be read, or is a pipe, whose writer would be waited for, or a device.
    """
    file = open(path, "rb", opener=_open_at_once)  # noqa: SIM115 - the caller's
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise OSError(EINVAL, "not a regular file", str(path))
    return file


def _open_at_once(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def check_links(folder: Path) -> None:
    """Refuse a model or an adapter in whose folder a link leads outside: what is made of it would hold that file.

    Links of a snapshot in the hub's cache may lead to the blobs of its repository.

    Raises:
        FileError: a link leads outside, or the folder cannot be read.
    """
    root = Path(os.path.realpath(folder))
    inside = [root, root.parents[1] / "blobs"] if root.parent.name == "snapshots" else [root]
    try:
        for path in (*folder.iterdir(), *folder.glob(f"{MORE_TEMPLATES}/*")):
            target = Path(os.path.realpath(path)) if path.is_symlink() else root
            if not any(map(target.is_relative_to, inside)):
                raise FileError(f"{path}: leads outside the folder, to {target}: replace it by a copy, or delete it")
    except OSError as failure:
        raise FileError(f"{folder}: {failure.strerror or failure}") from None
