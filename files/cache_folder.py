"""The user's cache folder, for files that can be made again, and who else could change a folder."""

import hashlib
import json
import os
import stat
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import cache
from pathlib import Path

from platformdirs import user_cache_dir

from ..errors import OutputError
from .output import make_folder

REMEDY = "set THIRTEEN_CACHE to a folder that can be written to"


def cache_dir() -> Path:
    """The cache folder, created if it is missing; the environment variable `THIRTEEN_CACHE` overrides it.

    Raises:
        OutputError: it cannot be created, there is no home folder to create it in, or other users, who could
            plant a model, can write to it.
    """
    chosen = os.environ.get("THIRTEEN_CACHE")
    try:
        folder = Path(chosen or user_cache_dir("thirteen", appauthor=False, opinion=False)).expanduser()
        make_folder(folder)
    except RuntimeError:
        raise OutputError(f"{chosen or 'the cache folder'}: no home folder is known; {REMEDY}") from None
    except OutputError as error:
        raise OutputError(f"{error}; {REMEDY}") from None
    _check_private(folder)
    return folder


def cached(name: str, make: Callable[[Path], object]) -> Path:
    """The file of this name in the cache; where there is none, `make` writes it, atomically, or raises.

    The name has a hash of all that the content depends on, so that nothing is ever out of date.

    Raises:
        OutputError: see cache_dir().
    """
    path = cache_dir() / name
    if not path.exists():
        make_folder(path.parent)
        make(path)
    return path


def cache_key(*parts: object) -> str:
    """Part of a file's name in the cache that tells what the file was made from."""
    return _digest([str(part) for part in parts])


def record_file(kind: str, key: Mapping[str, object]) -> Path:
    """The file in the cache that records what was found out under a key of JSON values; see cache_dir()."""
    return cache_dir() / f"{kind}-{_digest(key)}.json"


def _digest(value: object) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()[:16]


@cache
def _check_private(folder: Path) -> None:
    """Refuse a folder that others can write to, or that has files of others.

    Where one's group can write because of the umask, that right is taken away first.
    """
    if os.name != "posix":
        return
    owners = dict[str, int]()
    try:
        found = folder.stat()
        if found.st_uid == os.geteuid() and not found.st_mode & stat.S_IWOTH:
            folder.chmod(stat.S_IMODE(found.st_mode) & ~stat.S_IWGRP)
        problem = sharing_problem(folder.resolve())
        with os.scandir(folder) as entries:
            for entry in entries:
                with suppress(FileNotFoundError):  # the part file of another process
                    owners[entry.name] = entry.stat(follow_symlinks=False).st_uid
    except OSError as error:
        problem = str(error)
    strangers = (
        f"{name} belongs to user {uid}" for name, uid in owners.items() if uid not in (0, os.geteuid())
    )
    if reason := problem or next(strangers, None):
        raise OutputError(
            f"the cache folder {folder} is not private: {reason}; make it so, or set THIRTEEN_CACHE"
        )


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
