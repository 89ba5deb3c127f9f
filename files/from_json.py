"""Dataclasses from JSON, the inverse of dataclasses.asdict(): reports, and the records of journals."""

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any, ClassVar, Generic, Protocol, TypeVar

from pydantic import TypeAdapter, ValidationError

from ..errors import FileError, RequestError, shorten
from .journal import Journal


class _NumberedDataclass(Protocol):
    __dataclass_fields__: ClassVar[dict[str, Any]]

    @property
    def number(self) -> int: ...


T = TypeVar("T")
R = TypeVar("R", bound=_NumberedDataclass)

# Making an adapter takes longer than reading hundreds of lines of a log with it.
_adapter: Callable[[Any], TypeAdapter[Any]] = cache(TypeAdapter)


def from_json(type_: type[T], value: Any, where: str) -> T:
    """Restore a dataclass from what asdict() made of one.

    Raises:
        FileError: a field without a default is missing, one has the wrong type or a value that the
            dataclass refuses, or a number is NaN or infinite.
    """
    try:
        text = json.dumps(value, allow_nan=False)
    except ValueError:
        raise FileError(f"{where}: has a number that is NaN or infinite") from None
    try:
        # As JSON, in which a list can be a tuple: strictly, a Python list cannot.
        restored: T = _adapter(type_).validate_json(text, strict=True)
    except ValidationError as error:
        raise FileError(f"{where}{_first_error(error)}") from None
    except RequestError as error:
        raise FileError(f"{where}: {error}") from None
    return restored


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


def _first_error(error: ValidationError) -> str:
    """Path of the first wrong value, as in "by_length[0]: tokens", and what is wrong with it."""
    first = error.errors(include_url=False, include_context=False)[0]
    path = "".join(f"[{part}]" if isinstance(part, int) else f": {part}" for part in first["loc"])
    if first["type"] == "missing":
        return f"{path} is missing: not what is expected here"
    return f"{path}: {shorten(first['input'])} {first['msg'].removeprefix('Input ')}"
