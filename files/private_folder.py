"""Whether others on this machine can change the files of a folder."""

import os
import stat
from pathlib import Path


def sharing_problem(folder: Path) -> str | None:
    """Why users other than this one and root may have written a folder's files; None if they cannot have.

    A folder that does not exist has no problem, and on Windows none is seen.

    Raises:
        OSError: the folder cannot be examined.
    """
    if os.name != "posix":
        return None
    try:
        found = folder.stat(follow_symlinks=False)
    except FileNotFoundError:
        return None
    if not stat.S_ISDIR(found.st_mode):
        return "it is not a folder"
    if found.st_uid not in (0, os.geteuid()):
        return f"it belongs to user {found.st_uid}"
    if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        return f"others can write to it (mode {stat.S_IMODE(found.st_mode):o})"
    return None
