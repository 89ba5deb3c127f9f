"""The user's cache folder, for files that can be made again."""

import os
import sys
from pathlib import Path

from ..errors import OutputError
from .output import make_folder


def cache_dir() -> Path:
    """The cache folder, created if it is missing; the environment variable `THIRTEEN_CACHE` overrides it.

    Raises:
        OutputError: it cannot be created, or there is no home folder to create it in.
    """
    chosen = os.environ.get("THIRTEEN_CACHE")
    try:
        folder = Path(chosen).expanduser() if chosen else _system_cache() / "thirteen"
    except RuntimeError:
        place = f"THIRTEEN_CACHE={chosen}" if chosen else "the cache folder"
        raise OutputError(
            f"{place}: no home folder is known; set THIRTEEN_CACHE to a folder's path"
        ) from None
    make_folder(folder)
    return folder


def _system_cache() -> Path:
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches"
    chosen = Path(os.environ.get("LOCALAPPDATA" if sys.platform == "win32" else "XDG_CACHE_HOME", ""))
    if chosen.is_absolute():  # XDG: relative paths are ignored
        return chosen
    return Path.home() / ("AppData/Local" if sys.platform == "win32" else ".cache")
