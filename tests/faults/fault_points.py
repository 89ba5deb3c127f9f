"""Faults at the points where a process changes files: its n-th write, fsync or rename fails, or kills it.

`install()` replaces Python's functions before the modules are imported that take them by name. Until `arm()`
they behave as ever. Linux only: the name of an open file is read from /proc.
"""

import builtins
import errno
import io
import os
import signal
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import Any

KILL, FULL_DISK, BAD_DISK = KINDS = ("kill", "ENOSPC", "EIO")
_GROWING = ("open", "write", "fsync", "replace", "rename", "mkdir")  # points that a full disk refuses
_REFUSED = ("open", "write", "mkdir")  # and those that it refuses from then on
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT


def can_fail(kind: str, point: str) -> bool:
    """Whether a point such as "write out/a.gguf" can have a fault of this kind."""
    return kind != FULL_DISK or point.startswith(_GROWING)


@dataclass
class _Faults:
    """The points so far, and what happens at which of them.

    Attributes:
        root: only files in this folder count; before arm(), none.
        kind: what happens.
        at: at which point; -1 for none.
        points: operation and path of each change of a file.
    """

    root: Path | None = None
    kind: str = ""
    at: int = -1
    points: list[str] = field(default_factory=list)
    lock: Lock = field(default_factory=Lock)

    def is_due(self, operation: str, path: Path) -> bool:
        """Count a change of a file; whether it must fail."""
        if self.root is None or not path.is_relative_to(self.root):
            return False
        point = f"{operation} {path.relative_to(self.root)}"
        with self.lock:
            number = len(self.points)
            self.points.append(point)
        full = self.kind == FULL_DISK and 0 <= self.at < number and operation in _REFUSED
        return full or (number == self.at and can_fail(self.kind, point))

    def fail(self, path: Path | None = None) -> None:
        """Raise the error, or kill the process."""
        if self.kind == KILL:
            os.kill(os.getpid(), signal.SIGKILL)
        code = getattr(errno, self.kind)
        raise OSError(code, os.strerror(code), *([str(path)] if path else []))


_faults = _Faults()


def arm(root: str, kind: str, at: int) -> None:
    """Count from now on, and let the point number `at` fail; none does if it is -1."""
    _faults.root, _faults.kind, _faults.at = Path(root), kind, at


def points() -> list[str]:
    """The points so far."""
    return _faults.points


def _path(target: Any, folder: int | None = None) -> Path:
    """The path of a file that is named or open; `folder` is what a relative name is relative to."""
    if isinstance(target, int):
        return Path(str(Path(f"/proc/self/fd/{target}").readlink()).removesuffix(" (deleted)"))
    parent = Path.cwd() if folder is None else _path(folder)
    return parent / os.fsdecode(target)


def _check(operation: str, target: Any, folder: int | None = None) -> None:
    if _faults.root is not None and _faults.is_due(operation, path := _path(target, folder)):
        _faults.fail(None if isinstance(target, int) else path)


def _written(target: int, data: Any, write: Callable[[Any], int]) -> int:
    """Write all of `data`, or the half of it that a full disk takes."""
    if _faults.root is None or not _faults.is_due("write", _path(target)):
        return write(data)
    view = memoryview(data).cast("B")
    write(view[: len(view) // 2])
    _faults.fail()
    raise AssertionError


class _FileIO(io.FileIO):
    def __init__(
        self, file: Any, mode: str = "r", closefd: bool = True, opener: Callable[..., int] | None = None
    ) -> None:
        if opener is None and not isinstance(file, int) and set(mode) & set("wax+"):
            _check("open", file)  # an opener calls os.open
        super().__init__(file, mode, closefd, opener)

    def write(self, data: Any, /) -> int:
        return _written(self.fileno(), data, super().write)

    def truncate(self, size: int | None = None, /) -> int:
        _check("truncate", self.fileno())
        return super().truncate(size)


def _replace_open() -> None:
    real: Callable[..., Any] = io.open

    def open_(file: Any, mode: str = "r", buffering: int = -1, *text: Any, **options: Any) -> Any:
        if _faults.root is None or isinstance(file, int) or not set(mode) & set("wax+"):
            return real(file, mode, buffering, *text, **options)
        raw = _FileIO(file, mode.replace("b", "").replace("t", ""), opener=options.pop("opener", None))
        if buffering == 0:
            return raw
        buffered = io.BufferedRandom(raw) if "+" in mode else io.BufferedWriter(raw)
        return buffered if "b" in mode else io.TextIOWrapper(buffered, *text, **options)

    builtins.open = io.open = open_


def _replace_in_os() -> None:
    """Replace the functions of `os` whose point is their first or second path, or an open file."""
    path_at = {"fsync": 0, "unlink": 0, "remove": 0, "mkdir": 0, "rmdir": 0, "rename": 1, "replace": 1}

    def replaced(name: str, at: int) -> Callable[..., Any]:
        real = getattr(os, name)

        def call(*args: Any, **options: Any) -> Any:
            if not (name == "mkdir" and Path(args[0]).is_dir()):  # it exists, so nothing is changed
                _check(name, args[at], options.get("dir_fd"))
            return real(*args, **options)

        return call

    for name, at in path_at.items():
        setattr(os, name, replaced(name, at))
    real_open, real_write, real_send = os.open, os.write, os.sendfile

    def open_(path: Any, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        if flags & _WRITING:
            _check("open", path, dir_fd)
        return real_open(path, flags, mode, dir_fd=dir_fd)

    def send(out: int, source: int, offset: int, count: int) -> int:
        _check("write", out)
        return real_send(out, source, offset, count)

    os.open, os.sendfile = open_, send  # type: ignore[assignment]
    os.write = lambda file, data: _written(file, data, lambda part: real_write(file, part))


def install() -> None:
    """Replace the functions, once in a process."""
    io.FileIO = _FileIO  # type: ignore[misc]
    _replace_open()
    _replace_in_os()
