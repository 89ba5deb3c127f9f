"""Which model files are loaded without a trial: those that this project wrote, and those that passed one.

A record is an empty file in the cache folder. One is named by the SHA-256 of the bytes, so that a renamed
file keeps it. Another is named by path, size and times: while these stay, the bytes are not hashed again.
"""

import json
import os
import stat
from contextlib import suppress
from dataclasses import dataclass
from errno import EINVAL
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Self

from ..errors import OutputError, RequestError
from .cache_folder import cache_dir, sharing_problem

_VARIABLE = "THIRTEEN_UNTRUSTED"
_SETTINGS = {"": None, "always": True, "never": False}
_FOLDER = "trusted"
_recorded_here: set[str] = set()  # by this process, which a cache that cannot be written does not hinder


def untrusted_by_default() -> bool | None:
    """The environment variable `THIRTEEN_UNTRUSTED`: whether all files or none need a trial.

    Returns:
        True for `always`, False for `never`, None without it: the files without a record.

    Raises:
        RequestError: it is something else.
    """
    value = os.environ.get(_VARIABLE, "")
    if value not in _SETTINGS:
        raise RequestError(f"{_VARIABLE}={value}: must be always or never")
    return _SETTINGS[value]


@dataclass(frozen=True)
class FileState:
    """A file as it was at some moment.

    Attributes:
        path: the file.
        stamp: hash of its path, size and times.
    """

    path: Path
    stamp: str

    @classmethod
    def now(cls, path: Path) -> Self:
        """The present state of a file.

        Raises:
            OSError: it cannot be examined, or is no regular file.
        """
        found = path.stat()
        if not stat.S_ISREG(found.st_mode):
            raise OSError(EINVAL, "not a regular file", str(path))
        facts = (str(path.resolve()), found.st_size, found.st_mtime_ns, found.st_ctime_ns)
        return cls(path, sha256(json.dumps(facts).encode()).hexdigest())

    @cached_property
    def sha256(self) -> str:
        """The SHA-256 of its bytes."""
        from .hashing import file_sha256  # noqa: PLC0415 - a file is hashed once

        return file_sha256(self.path)

    @property
    def trusted(self) -> bool:
        """Whether there is a record of the file. Hashes its bytes if this state is new.

        Raises:
            OSError: the file cannot be read.
        """
        if _is_recorded(self.stamp):
            return True
        if not _is_recorded(self.sha256):
            return False
        _record(self.stamp)
        return True

    def trust(self) -> None:
        """Record the file, if it is still in this state.

        Raises:
            OSError: it cannot be read.
        """
        if _is_recorded(self.stamp):
            return
        names = (self.sha256, self.stamp)
        if FileState.now(self.path) == self:  # what was hashed and tried
            _record(*names)


def trust_file(path: Path, digest: str | None = None) -> None:
    """Record a file that this process has just written or checked; `digest` is its SHA-256, if known."""
    if os.environ.get(_VARIABLE) == "never":
        return  # nothing looks for records
    with suppress(OSError):  # it is gone again
        file = FileState.now(path)
        _record(digest or file.sha256, file.stamp)


def is_trusted(path: Path) -> bool:
    """Whether there is a record of a file; there is none of one that cannot be read."""
    with suppress(OSError):
        return FileState.now(path).trusted
    return False


def _record(*names: str) -> None:
    _recorded_here.update(names)
    with suppress(OSError, OutputError):
        folder = cache_dir() / _FOLDER
        folder.mkdir(mode=0o700, exist_ok=True)
        for name in names:
            (folder / name).touch()


def _is_recorded(name: str) -> bool:
    if name in _recorded_here:
        return True
    with suppress(OSError, OutputError):
        folder = cache_dir() / _FOLDER
        return sharing_problem(folder) is None and (folder / name).is_file()
    return False
