"""The user's folder for what can be made again."""

import os
import sys
from pathlib import Path

from ..errors import OutputError


def cache_dir() -> Path:
    """The user's folder for converted files, made if need be; `THIRTEEN_CACHE` names another.

    Raises:
        OutputError: It cannot be made.
    """
    chosen = os.environ.get("THIRTEEN_CACHE")
    folder = Path(chosen).expanduser() if chosen else _system_cache() / "thirteen"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{folder}: cannot make the cache's folder: {error.strerror}") from error
    return folder


def _system_cache() -> Path:
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches"
    default = Path.home() / ("AppData/Local" if sys.platform == "win32" else ".cache")
    chosen = Path(os.environ.get("LOCALAPPDATA" if sys.platform == "win32" else "XDG_CACHE_HOME", ""))
    return chosen if chosen.is_absolute() else default  # the XDG specification says to ignore relative ones
