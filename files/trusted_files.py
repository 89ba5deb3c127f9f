"""Files that need no trial: those that this package wrote or checked, and those that have passed one.

A record is an empty file in the cache folder, named after the state of the file that it stands for.
"""

import json
import os
from contextlib import suppress
from hashlib import sha256
from pathlib import Path

from ..errors import OutputError, RequestError
from .cache_folder import cache_dir

_VARIABLE = "THIRTEEN_UNTRUSTED"
_SETTINGS = {"": None, "always": True, "never": False}
_recorded_here: set[str] = set()  # for a process whose cache folder cannot be written


def untrusted_by_default() -> bool | None:
    """Whether all files need a trial, or none, by `THIRTEEN_UNTRUSTED`, which is `always` or `never`.

    Without it, None, those need one that have no record.
    """
    value = os.environ.get(_VARIABLE, "")
    if value not in _SETTINGS:
        raise RequestError(f"{_VARIABLE}={value}: must be always or never")
    return _SETTINGS[value]


def file_stamp(path: Path, *used_with: str) -> str:
    """Hash of a file's path, size and times, and of what it is used with; OSError if there is none."""
    state = path.stat()
    facts = (str(path.resolve()), state.st_size, state.st_mtime_ns, state.st_ctime_ns, *used_with)
    return sha256(json.dumps(facts).encode()).hexdigest()


def trust_file(path: Path) -> None:
    """Record a file that this process has just written or checked."""
    if os.environ.get(_VARIABLE) != "never":  # then nothing looks for records
        with suppress(OSError):  # it is gone again
            record(file_stamp(path))


def is_trusted(path: Path) -> bool:
    """Whether trust_file() has recorded the file as it is now."""
    with suppress(OSError):
        return is_recorded(file_stamp(path))
    return False


def record(stamp: str) -> None:
    """Record a file by its stamp."""
    _recorded_here.add(stamp)
    with suppress(OSError, OutputError):
        folder = cache_dir() / "trusted"
        folder.mkdir(mode=0o700, exist_ok=True)
        (folder / stamp).touch()


def is_recorded(stamp: str) -> bool:
    """Whether there is a record; no other user can have made it, as the cache folder is private."""
    if stamp in _recorded_here:
        return True
    with suppress(OSError, OutputError):
        return (cache_dir() / "trusted" / stamp).is_file()
    return False
