"""Journals whose entries are dataclasses, numbered from 0."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, ClassVar, Generic, Protocol, TypeVar

from ..errors import FileError, shorten
from .from_json import from_json
from .journal import Journal


class _NumberedDataclass(Protocol):
    __dataclass_fields__: ClassVar[dict[str, Any]]

    @property
    def number(self) -> int: ...


T = TypeVar("T", bound=_NumberedDataclass)


class RecordJournal(Journal, Generic[T]):
    """The records of one run, at most one of each number.

    Attributes:
        records: the records on disk, by number.
    """

    def __init__(self, path: Path, identity: Mapping[str, Any], run: str, type_: type[T], total: int) -> None:
        """Read the records; nothing is written before the first `add()`.

        Args:
            path: the file, which need not exist.
            identity: all that the records depend on, as values that JSON can hold.
            run: the key of the identity in the first line.
            type_: dataclass of the records.
            total: number of records of a whole run.

        Raises:
            FileError: a record is not one of this run.
            RequestError: the file cannot be read, is not a journal, or belongs to another run.
        """
        super().__init__(path, identity, run)
        self.records = dict[int, T]()
        for line, entry in enumerate(self.entries, 2):
            record = from_json(type_, entry, f"{path}: line {line}")
            if record.number in self.records or not 0 <= record.number < total:
                raise FileError(f"{path}: unexpected record of question {shorten(record.number)}")
            self.records[record.number] = record

    def add(self, record: T) -> None:
        """Write a record to disk.

        Raises:
            OutputError: it cannot be written, or another process is writing.
        """
        self.record(asdict(record))
        self.records[record.number] = record
