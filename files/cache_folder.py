"""The user's cache folder, for files that can be made again."""

import os
import sys
from pathlib import Path

from .output import make_folder


def cache_dir() -> Path:
    """The cache folder, created if it is missing; the environment variable `THIRTEEN_CACHE` overrides it.

    Raises:
        OutputError: it cannot be created.
    """
    chosen = os.environ.get("THIRTEEN_CACHE")
    folder = Path(chosen).expanduser() if chosen else _system_cache() / "thirteen"
    make_folder(folder)
    return folder


def _system_cache() -> Path:
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches"
    default = Path.home() / ("AppData/Local" if sys.platform == "win32" else ".cache")
    chosen = Path(os.environ.get("LOCALAPPDATA" if sys.platform == "win32" else "XDG_CACHE_HOME", ""))
    return chosen if chosen.is_absolute() else default  # XDG: relative paths are ignored
