"""The records of a sitting: a line for each question, written as it ends, to go on with after a break.

The first line tells what was asked of whom, and how. Records of another sitting are never gone on with.
Questions are asked in waves, each begun when the last one has ended, since what is computed together shows in
the last bits of all, and those can decide a token. So a wave that was broken off is asked anew as a whole:
then the records are those of a sitting without breaks.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from ...errors import RequestError
from ...files.journal import Journal

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
class QuestionRecord:
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


class EvalLog:
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
        self.path = path
        self._journal = Journal(path, identity, "sitting")
        found = [_parsed(entry, f"{path}: line {n}") for n, entry in enumerate(self._journal.entries, 2)]
        kept = _whole_waves(found, total, wave, path)
        self._journal.keep(kept)
        self._records = {record.number: record for record in found[:kept]}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._journal.__exit__(kind, error, trace)

    def __len__(self) -> int:
        return len(self._records)

    def __iter__(self) -> Iterator[QuestionRecord]:
        """The records, in the order of the questions."""
        return (record for _, record in sorted(self._records.items()))

    def __contains__(self, number: int) -> bool:
        """Whether there is a record of this question."""
        return number in self._records

    def append(self, record: QuestionRecord) -> None:
        """Write a record, so that it is there whatever happens next.

        Raises:
            OutputError: it cannot be written, or another process is writing.
        """
        self._journal.record(asdict(record))
        self._records[record.number] = record


def _whole_waves(records: Sequence[QuestionRecord], total: int, wave: int, path: Path) -> int:
    """How many records, from the first on, are those of whole waves, whose order does not matter."""
    missing = {start: min(wave, total - start) for start in range(0, total, wave)}
    seen: set[int] = set()
    begun: set[int] = set()
    kept = 0
    for count, record in enumerate(records, 1):
        start = record.number // wave * wave
        if record.number in seen or start not in missing:
            raise RequestError(f"{path}: a record of question {record.number} is one too many")
        seen.add(record.number)
        missing[start] -= 1
        (begun.add if missing[start] else begun.discard)(start)
        kept = kept if begun else count
    return kept


def _parsed(value: Mapping[str, Any], where: str) -> QuestionRecord:
    try:
        samples = tuple(
            Sample(**(sample | {"outcome": Outcome(sample["outcome"])})) for sample in value["samples"]
        )
        record = QuestionRecord(**(dict(value) | {"outcome": Outcome(value["outcome"]), "samples": samples}))
    except (ValueError, LookupError, TypeError):
        raise RequestError(f"{where}: not a record") from None
    if type(record.number) is not int:
        raise RequestError(f"{where}: not a record: its number is {record.number!r:.{_SHOWN}}")
    return record
