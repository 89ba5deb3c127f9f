"""The user's cache folder, for files that can be made again, and temporary folders, there or elsewhere."""

import hashlib
import json
import os
import re
import secrets
import shutil
import stat
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from platformdirs import user_cache_dir

from ..errors import OutputError
from .output import make_folder, output_errors, remove_left_over

REMEDY = "set THIRTEEN_CACHE to a folder that can be written to"


def cache_dir() -> Path:
    """The cache folder, created if it is missing; the environment variable `THIRTEEN_CACHE` overrides it."""
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
    """Refuse a folder of another user, or that others can write to."""
    if os.name != "posix":
        return
    state = folder.stat()
    mode, problem = stat.S_IMODE(state.st_mode), None
    if state.st_uid not in (0, os.geteuid()):
        problem = f"it belongs to user {state.st_uid}"
    elif mode & stat.S_IWOTH:
        problem = f"others can write to it (mode {mode:o})"
    elif mode & stat.S_IWGRP:  # given by the umask
        with output_errors(folder):
            folder.chmod(mode & ~stat.S_IWGRP)
    if problem:
        raise OutputError(
            f"the cache folder {folder} is not private: {problem}; make it so, or set THIRTEEN_CACHE"
        )


@contextmanager
def temporary_folder(prefix: str, parent: Path | None = None, mode: int = 0o700) -> Iterator[Path]:
    """Create a folder under a random name, which is removed when the block ends, unless it was renamed.

    By default it is in the cache, and only this user can reach it. What a killed process left, a later one
    removes.
    """
    parent = parent or cache_dir()
    remove_left_over(parent, rf"{re.escape(prefix)}-[0-9a-f]{{16}}")
    folder = parent / f"{prefix}-{secrets.token_hex(8)}"
    with output_errors(folder):
        folder.mkdir(mode)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
