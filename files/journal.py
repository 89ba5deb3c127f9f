"""A file that a run appends a line to as each of its parts ends, to go on with after a break.

The first line tells which run it is: all that its results depend on. No other run goes on with it.
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

from ..errors import OutputError, RequestError

try:
    import fcntl
except ImportError:  # on Windows
    fcntl = None  # type: ignore[assignment]

FORMAT = 1
_SHOWN = 60  # characters of a value that is not what it should be

Entry = dict[str, Any]


class Journal:
    """The entries of one run, and where more of them go.

    Attributes:
        path: the file.
        entries: those that were found, in the order in which they were written.
    """

    def __init__(self, path: Path, identity: Mapping[str, Any], run: str) -> None:
        """Read what there is; nothing is written before the first new entry.

        Args:
            path: the file, which need not exist.
            identity: all that the entries depend on, as JSON has it.
            run: the word for a run, in the file and in errors.

        Raises:
            RequestError: the file cannot be read, holds something else, or is of another run.
        """
        self.path, self._identity, self._run = path, dict(identity), run
        self._file: BinaryIO | None = None
        data = _read(path)
        self._found = len(data)  # bytes
        self._lines = data[: data.rfind(b"\n") + 1].splitlines(keepends=True)  # without one that was torn
        if self._lines:
            self._check_identity()
        self.entries = [self._entry(line, number) for number, line in enumerate(self._lines[1:], 2)]
        self._kept = len(self._lines)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file:
            self._file.close()

    def keep(self, count: int) -> None:
        """Drop all entries found but the first ones: the next that is appended takes their place."""
        self.entries = self.entries[:count]
        self._kept = 1 + count if self._lines else 0

    def append(self, entry: Mapping[str, Any]) -> None:
        """Write an entry, so that it is there whatever happens next.

        Raises:
            OutputError: it cannot be written, or another process is writing.
        """
        try:
            if self._file is None:
                self._file = self._open()
            self._file.write(_line(entry))
            self._file.flush()
            os.fsync(self._file.fileno())
        except OSError as error:
            raise OutputError(f"{self.path}: {error.strerror or error}") from error

    def _open(self) -> BinaryIO:
        """The file without what a break left at its end, begun if it is new."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        file = self.path.open("ab")
        try:
            _lock(file, self.path)
            if os.fstat(file.fileno()).st_size != self._found:
                raise OutputError(f"{self.path}: another process has written these records")  # noqa: TRY301
        except OutputError:
            file.close()
            raise
        file.truncate(sum(map(len, self._lines[: self._kept])))
        if not self._kept:
            file.write(_line({"format": FORMAT, self._run: self._identity}))
        return file

    def _check_identity(self) -> None:
        try:
            header = json.loads(self._lines[0])
            told, form = dict(header[self._run]), header["format"]
        except (ValueError, LookupError, TypeError, RecursionError):
            raise RequestError(
                f"{self.path}: not a file of records: its first line does not tell of a {self._run}"
            ) from None
        if form != FORMAT:
            raise RequestError(f"{self.path}: records of format {form!r:.{_SHOWN}}, not {FORMAT}")
        for key in [*self._identity, *told]:
            if told.get(key) != self._identity.get(key):
                there, here = (f"{side.get(key)!r:.{_SHOWN}}" for side in (told, self._identity))
                raise RequestError(
                    f"{self.path}: records of another {self._run}: {key} is {there} there and {here} here"
                )

    def _entry(self, line: bytes, number: int) -> Entry:
        try:
            entry = json.loads(line)
        except (ValueError, RecursionError):
            entry = None
        if not isinstance(entry, dict):
            raise RequestError(f"{self.path}: line {number}: not a record")
        return entry


def _lock(file: BinaryIO, path: Path) -> None:
    """Keep other processes from writing the same entries, until the file is closed."""
    if fcntl is not None:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise OutputError(f"{path}: another process is writing these records") from None


def _line(value: Mapping[str, Any]) -> bytes:
    return json.dumps(value).encode() + b"\n"


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return b""
    except OSError as error:
        raise RequestError(f"{path}: {error.strerror or error}") from None
