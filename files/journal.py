"""Append-only files, from which an interrupted run resumes.

An entry is on disk when `record()` returns. A last line without a newline was torn by a kill or a full disk
and does not count.
"""

import json
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict
from io import FileIO
from pathlib import Path
from typing import Any, ClassVar, Generic, Protocol, Self, TypeVar

from ..errors import FileError, OutputError, RequestError, shorten
from .json_file import from_json
from .output import make_folder, output_errors
from .received_files import open_regular

FORMAT = 1

Entry = dict[str, Any]


class _NumberedDataclass(Protocol):
    __dataclass_fields__: ClassVar[dict[str, Any]]

    @property
    def number(self) -> int: ...


R = TypeVar("R", bound=_NumberedDataclass)


class Journal:
    """The JSON entries of one run, in a file that grows by whole lines.

    The first line holds the run's identity: all that its results depend on. No run resumes another's file.

    Attributes:
        path: the file.
        entries: the entries that were found, in the order in which they were written.
    """

    def __init__(self, path: Path, identity: Mapping[str, Any], run: str) -> None:
        """Read the entries; nothing is written before the first `record()`.

        Raises:
            RequestError: the file cannot be read, is not a journal, or belongs to another run.
        """
        self.path = path
        self._file: FileIO | None = None
        data = _read(path)
        lines = data.split(b"\n")[:-1]
        self._found_bytes = len(data)
        self._kept_bytes = data.rfind(b"\n") + 1
        self._identity, self._run = json.loads(json.dumps(identity)), run  # tuples become lists
        if lines:
            self._check_identity(lines[0])
        self.entries = [self._entry(line, number) for number, line in enumerate(lines[1:], 2)]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._file:
            self._file.close()

    def record(self, entry: Mapping[str, Any]) -> None:
        """Append an entry."""
        if self._file is None:
            make_folder(self.path.parent)
            with output_errors(self.path):
                self._file = self._open()
        if not os.fstat(self._file.fileno()).st_size:
            self._append(self._file, json.dumps({"format": FORMAT, self._run: self._identity}))
        self._append(self._file, json.dumps(entry))

    def _append(self, file: FileIO, line: str) -> None:
        """Write a line to disk, or nothing of it."""
        with output_errors(self.path):
            start = os.fstat(file.fileno()).st_size
            try:
                _write(file, f"{line}\n".encode())
                os.fsync(file.fileno())
            except OSError:
                with suppress(OSError):  # a full disk keeps half a line
                    file.truncate(start)
                raise

    def _open(self) -> FileIO:
        """Open the file for this process alone, and cut off a torn line."""
        file = FileIO(self.path, "ab")  # unbuffered: no rest to write after an error
        try:
            if not _lock(file):
                raise OutputError(f"{self.path}: another process is writing these records")  # noqa: TRY301
            if os.fstat(file.fileno()).st_size != self._found_bytes:
                raise OutputError(f"{self.path}: another process has changed these records")  # noqa: TRY301
            file.truncate(self._kept_bytes)
        except BaseException:
            file.close()
            raise
        return file

    def _check_identity(self, line: bytes) -> None:
        try:
            header = json.loads(line)
            found = dict(header[self._run]) if header["format"] == FORMAT else None
        except (ValueError, LookupError, TypeError, RecursionError):
            found = None
        if found is None:
            raise RequestError(
                f"{self.path}: not a record of this kind of run, or not of format {FORMAT}: bad first line"
            )
        for key in [*self._identity, *found]:
            if found.get(key) != self._identity.get(key):
                there, here = (shorten(side.get(key)) for side in (found, self._identity))
                raise RequestError(
                    f"{self.path}: records of another run: {key} is {there} in the file, {here} now"
                )

    def _entry(self, line: bytes, number: int) -> Entry:
        try:
            entry = json.loads(line)
        except (ValueError, RecursionError):
            entry = None
        if not isinstance(entry, dict):
            raise RequestError(f"{self.path}: line {number}: not a record")
        return entry


class RecordJournal(Journal, Generic[R]):
    """The records of one run, at most one of each number.

    Attributes:
        records: the records on disk, by number.
    """

    def __init__(self, path: Path, identity: Mapping[str, Any], run: str, type_: type[R], total: int) -> None:
        """Read the records; nothing is written before the first `add()`.

        Raises:
            FileError: a record is not one of this run.
            RequestError: the file cannot be read, is not a journal, or belongs to another run.
        """
        super().__init__(path, identity, run)
        self.records = dict[int, R]()
        for line, entry in enumerate(self.entries, 2):
            record = from_json(type_, entry, f"{path}: line {line}")
            if record.number in self.records or not 0 <= record.number < total:
                raise FileError(f"{path}: unexpected record of question {shorten(record.number)}")
            self.records[record.number] = record

    def add(self, record: R) -> None:
        """Write a record to disk."""
        self.record(asdict(record))
        self.records[record.number] = record


def _read(path: Path) -> bytes:
    try:
        with open_regular(path) as file:
            return file.read()
    except FileNotFoundError:
        return b""
    except OSError as error:
        raise RequestError(f"{path}: {error.strerror or error}") from None


def _lock(file: FileIO) -> bool:
    """Lock a file until it is closed; False if another process has. Without support nothing is locked."""
    with suppress(ImportError, OSError):  # Windows; some network file systems
        import fcntl  # noqa: PLC0415

        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
    return True


def _write(file: FileIO, data: bytes) -> None:
    while data:
        data = data[file.write(data) :]
