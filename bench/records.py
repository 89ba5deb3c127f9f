"""The records of a sitting: a line for each question, written as it ends, to go on with after a break.

The first line tells what was asked of whom, and how. Records of another sitting are never gone on with.
Questions are asked in waves, each begun when the last one has ended, since what is computed together shows in
the last bits of all, and those can decide a token. So a wave that was broken off is asked anew as a whole:
then the records are those of a sitting without breaks.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
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


class Outcome(StrEnum):
    """What became of a question."""

    CORRECT = "correct"
    WRONG = "wrong"
    TRUNCATED = "truncated"  # the tokens ran out before the answer ended
    UNPARSED = "unparsed"  # it ended, and no number is in it
    ERROR = "error"  # it could not be asked or computed: nothing is known of the answer


@dataclass(frozen=True, slots=True)
class Sample:
    """One answer to a question.

    Attributes:
        value: the number that it gives; None if there is none.
        outcome: of this answer alone.
        verified: whether its equations hold and come to the value.
        tokens: how many it has.
        text: all of it.
    """

    value: str | None
    outcome: Outcome
    verified: bool
    tokens: int
    text: str


@dataclass(frozen=True, slots=True)
class Record:
    """A question that has ended.

    Attributes:
        number: its place in the set, from 0.
        expected: the right answer.
        value: the answer taken: the only one, or the one that most samples give.
        outcome: of that answer.
        samples: all answers, in the order of their seeds; none after an error.
        error: what went wrong; None if nothing did.
    """

    number: int
    expected: str
    value: str | None
    outcome: Outcome
    samples: tuple[Sample, ...]
    error: str | None = None


class Records:
    """The records of one sitting, and where more of them go."""

    def __init__(self, path: Path, identity: Mapping[str, Any], total: int, wave: int) -> None:
        """Read what there is of the sitting; nothing is written before the first new record.

        Args:
            path: the file, which need not exist.
            identity: all that the answers depend on, as JSON has it.
            total: how many questions there are.
            wave: how many of them are asked together.

        Raises:
            RequestError: the file cannot be read, holds something else, or is of another sitting.
        """
        self.path, self._identity = path, dict(identity)
        self._file: BinaryIO | None = None
        lines = _whole_lines(path)
        if lines:
            _check_identity(lines[0], self._identity, path)
        found = [_parsed(line, f"{path}: line {number}") for number, line in enumerate(lines[1:], 2)]
        kept = len(found) if len(found) == total else len(found) // wave * wave
        self._records = found[:kept]
        self._size = sum(map(len, lines[: 1 + kept]))  # bytes
        if {record.number for record in self._records} != set(range(kept)):
            raise RequestError(f"{path}: the records are not those of the first {kept} questions, each once")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file:
            self._file.close()

    def __len__(self) -> int:
        return len(self._records)

    def __iter__(self) -> Iterator[Record]:
        """The records, in the order of the questions."""
        return iter(sorted(self._records, key=lambda record: record.number))

    def append(self, record: Record) -> None:
        """Write a record, so that it is there whatever happens next.

        Raises:
            OutputError: it cannot be written, or another process is writing.
        """
        try:
            if self._file is None:
                self._file = self._open()
            self._file.write(_line(asdict(record)))
            self._file.flush()
        except OSError as error:
            raise OutputError(f"{self.path}: {error.strerror or error}") from error
        self._records.append(record)

    def _open(self) -> BinaryIO:
        """The file without what a break left at its end, begun if it is new."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        file = self.path.open("ab")
        try:
            _lock(file, self.path)
        except OutputError:
            file.close()
            raise
        file.truncate(self._size)
        if not self._size:
            file.write(_line({"format": FORMAT, "sitting": self._identity}))
        return file


def _lock(file: BinaryIO, path: Path) -> None:
    """Keep other processes from writing the same records, until the file is closed."""
    if fcntl is not None:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise OutputError(f"{path}: another process is writing these records") from None


def _line(value: Mapping[str, Any]) -> bytes:
    return json.dumps(value).encode() + b"\n"


def _whole_lines(path: Path) -> Sequence[bytes]:
    """The lines of a file; one that was torn at the end is none."""
    try:
        lines = path.read_bytes().splitlines(keepends=True)
    except FileNotFoundError:
        return []
    except OSError as error:
        raise RequestError(f"{path}: {error.strerror or error}") from None
    return lines if not lines or lines[-1].endswith(b"\n") else lines[:-1]


def _check_identity(line: bytes, identity: Mapping[str, Any], path: Path) -> None:
    try:
        header = json.loads(line)
        told, form = dict(header["sitting"]), header["format"]
    except (ValueError, LookupError, TypeError, RecursionError):
        raise RequestError(
            f"{path}: not a file of records: its first line does not tell of a sitting"
        ) from None
    if form != FORMAT:
        raise RequestError(f"{path}: records of format {form!r:.{_SHOWN}}, not {FORMAT}")
    for key in [*identity, *told]:
        if told.get(key) != identity.get(key):
            there, here = (f"{side.get(key)!r:.{_SHOWN}}" for side in (told, identity))
            raise RequestError(f"{path}: records of another sitting: {key} is {there} there and {here} here")


def _parsed(line: bytes, where: str) -> Record:
    try:
        value = json.loads(line)
        samples = tuple(
            Sample(**(sample | {"outcome": Outcome(sample["outcome"])})) for sample in value["samples"]
        )
        record = Record(**(value | {"outcome": Outcome(value["outcome"]), "samples": samples}))
    except (ValueError, LookupError, TypeError, RecursionError):
        raise RequestError(f"{where}: not a record") from None
    if type(record.number) is not int:
        raise RequestError(f"{where}: not a record: its number is {record.number!r:.{_SHOWN}}")
    return record
