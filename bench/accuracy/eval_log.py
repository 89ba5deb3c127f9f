"""Log of an evaluation run: a line per question, written as it finishes, from which the run resumes.

The first line identifies the run; a log of another run is refused. A resumed run has the same records as an
uninterrupted one; see reproducible_batches.py.
"""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from ...errors import FileError, shorten
from ...files.journal import Journal
from ..harness.from_json import from_json

LOGGED_RUN = "sitting"  # kind of run in the first line
TokenCount = Annotated[int, Field(ge=1, lt=1 << 31)]  # of an answer: the end-of-generation token counts


class Outcome(StrEnum):
    """Outcome of a question or of a sample."""

    CORRECT = "correct"
    WRONG = "wrong"
    TRUNCATED = "truncated"  # max_tokens were used up before the answer ended
    UNPARSED = "unparsed"  # a complete answer without a number
    ERROR = "error"  # the question was rejected, as one that does not fit the context: there is no answer


@dataclass(frozen=True, slots=True)
class Sample:
    """One answer to a question.

    Attributes:
        value: final number; None if the text has none.
        outcome: outcome of this answer alone.
        verified: whether its equations hold and yield the value.
        tokens: number of tokens.
        text: full text.
    """

    value: str | None
    outcome: Outcome
    verified: bool
    tokens: TokenCount
    text: str


@dataclass(frozen=True, slots=True)
class QuestionRecord:
    """Result of a question.

    Attributes:
        number: index in the set, from 0.
        expected: the right answer.
        value: value of the only sample, or of the majority vote.
        outcome: outcome of that value.
        samples: all answers, in the order of their seeds; empty after an error.
        error: what went wrong; None without an error.
        confidence: probability that the value is right, None if it is not known; see answer.py.
    """

    number: int
    expected: str
    value: str | None
    outcome: Outcome
    samples: tuple[Sample, ...]
    error: str | None = None
    confidence: float | None = None

    @property
    def tokens(self) -> int:
        """Tokens of all samples."""
        return sum(sample.tokens for sample in self.samples)


class EvalLog(Journal):
    """The records of one run, iterated in the order of the questions."""

    def __init__(self, path: Path, identity: Mapping[str, Any], total: int) -> None:
        """Read the records; nothing is written before the first new record.

        Args:
            path: the file, which need not exist.
            identity: everything that the answers depend on, as JSON values.
            total: number of questions.

        Raises:
            FileError: a record is not one of this run.
            RequestError: the file cannot be read, is not a log, or belongs to another run.
        """
        super().__init__(path, identity, LOGGED_RUN)
        self._records = dict[int, QuestionRecord]()
        for line, entry in enumerate(self.entries, 2):
            record = _parse(entry, f"{path}: line {line}")
            if record.number in self or not 0 <= record.number < total:
                raise FileError(f"{path}: unexpected record of question {shorten(record.number)}")
            self._records[record.number] = record

    def __len__(self) -> int:
        return len(self._records)

    def __iter__(self) -> Iterator[QuestionRecord]:
        return (record for _, record in sorted(self._records.items()))

    def __contains__(self, number: object) -> bool:
        return number in self._records

    def append(self, record: QuestionRecord) -> None:
        """Write a record to disk.

        Raises:
            OutputError: it cannot be written, or another process is writing.
        """
        self.record(asdict(record))
        self._records[record.number] = record


def _parse(value: Mapping[str, Any], where: str) -> QuestionRecord:
    record = from_json(QuestionRecord, value, where)
    if not record.samples and record.outcome is not Outcome.ERROR:
        raise FileError(f"{where}: no samples, but the outcome is {record.outcome}")
    return record
