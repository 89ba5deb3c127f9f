"""Batch inference: a JSON lines file of questions to a file of answers in the same order, resumable."""

import codecs
import json
from collections.abc import Sequence, Set
from contextlib import closing, suppress
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path
from time import perf_counter
from typing import Any

from ...errors import FileError, OutputError, shorten
from ...files.journal import RecordJournal
from ...files.json_file import LINES_BYTES_MAX, decode_utf8, json_object, numbered_lines, read_bounded
from ...files.output import atomic_write, check_target
from ...files.progress import Progress, no_progress
from ..answer import Answer, StopReason
from .reproducible_batches import BatchExecutor, BatchJob, answer_missing

_RUN = "batch"  # key of the identity in journals


# A line of the file of questions: line number (from 1), question and perhaps id; or why it is invalid.
Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class BatchRecord:
    """The outcome of a question, as the journal keeps it."""

    number: int  # index of its row, from 0
    outcome: Answer | str  # the answer, or why there is none


@dataclass(frozen=True, slots=True)
class BatchReport:
    """Report of a run."""

    output: str  # file of answers
    rows: int  # lines of the output
    answered: int  # rows with an answer
    without_value: int  # answered rows whose answer states no value
    cut_off: int  # answered rows whose answer was cut off, and so has none either
    bad: tuple[str, ...]  # errors of the other rows, each as "FILE: line N: reason"
    earlier: int  # rows that earlier, interrupted runs had answered
    tokens: int  # completion tokens of this run
    seconds: float  # wall time of this run

    @property
    def questions_an_hour(self) -> float:
        """Throughput of this run."""
        return 3600 * (self.answered - self.earlier) / self.seconds


@dataclass(frozen=True, slots=True)
class BatchFile:
    """A file of questions, and the file of answers that is made of it.

    Each answer is appended to OUTPUT.part when it is finished, from which an interrupted run resumes. The
    output is written when all rows are done.
    """

    questions: Path  # JSON lines with `question` and perhaps `id`; or a question a line
    output: Path  # file of answers, which must not exist
    skip_bad: bool = False  # report invalid lines instead of raising them

    def answer(
        self, job: BatchJob, executor: BatchExecutor = BatchJob.run, progress: Progress = no_progress
    ) -> BatchReport:
        """Answer the questions; `progress` is called with the rows done and all rows.

        FileError: the file cannot be read or has no question, OUTPUT.part is damaged, or a line is invalid or
        cannot be asked, and `skip_bad` is off. RequestError: OUTPUT.part belongs to another batch.
        OutputError: the output exists or cannot be written.
        """
        began = perf_counter()
        self.check_output()
        data = read_bounded(self.questions, LINES_BYTES_MAX)
        rows = self._parse(data)
        invalid = {number: row["error"] for number, row in enumerate(rows) if "error" in row}
        asked = {number: row["question"] for number, row in enumerate(rows) if "question" in row}
        job = job.decided()
        identity = {"questions_sha256": sha256(data).hexdigest(), **job.identity}
        with RecordJournal(self.part, identity, _RUN, BatchRecord, len(rows)) as journal:
            earlier = {number: record.outcome for number, record in journal.records.items()}
            for number, outcome in earlier.items():
                self._check(rows[number], outcome)
            progress(len(invalid) + len(earlier), len(rows))
            with closing(answer_missing(job, asked, earlier, executor)) as results:
                for result in results:
                    record = BatchRecord(result.number, result.answer or str(result.error))
                    self._check(rows[result.number], record.outcome)
                    journal.add(record)
                    progress(len(invalid) + len(journal.records), len(rows))
            outcomes = [invalid.get(n) or journal.records[n].outcome for n in range(len(rows))]
            self._write(b"".join(map(_output_line, rows, outcomes)))
            with suppress(OSError):
                self.part.unlink()
        return self._report(rows, outcomes, earlier.keys(), perf_counter() - began)

    def check_output(self) -> None:
        """Raise OutputError if the output cannot be written, or exists without records of a killed run."""
        check_target(self.output)
        if self.output.exists() and not self.part.exists():
            raise self._output_exists

    @property
    def part(self) -> Path:
        """The file of the records."""
        return self.output.with_name(f"{self.output.name}.part")

    @property
    def _output_exists(self) -> OutputError:
        return OutputError(f"{self.output}: already exists: remove it or choose another name")

    def _write(self, content: bytes) -> None:
        if self.output.exists() and self.output.read_bytes() != content:
            raise self._output_exists
        with atomic_write(self.output) as file:
            file.write(content)

    def _parse(self, data: bytes) -> list[Row]:
        data = data.removeprefix(codecs.BOM_UTF8)
        plain = self.questions.suffix not in (".jsonl", ".json") and not data.lstrip().startswith(b"{")
        rows = [_parse_line(number, line, plain=plain) for number, line in numbered_lines(data)]
        for row in rows:
            self._check(row, row.get("error"))
        if all("error" in row for row in rows):
            raise FileError(f"{self.questions}: has no question" + (f": {rows[0]['error']}" if rows else ""))
        return rows

    def _check(self, row: Row, outcome: Answer | str | None) -> None:
        """Raise FileError for a line that is invalid or cannot be asked, unless it is skipped."""
        if isinstance(outcome, str) and not self.skip_bad:
            raise FileError(self._error(row, outcome))

    def _error(self, row: Row, error: str) -> str:
        return f"{self.questions}: line {row['line']}: {error}"

    def _report(
        self, rows: Sequence[Row], outcomes: Sequence[Answer | str], earlier: Set[int], seconds: float
    ) -> BatchReport:
        answers = {n: outcome for n, outcome in enumerate(outcomes) if isinstance(outcome, Answer)}
        refused = {n: outcome for n, outcome in enumerate(outcomes) if isinstance(outcome, str)}
        return BatchReport(
            output=str(self.output),
            rows=len(rows),
            answered=len(answers),
            without_value=sum(answer.value is None for answer in answers.values()),
            cut_off=sum(answer.stop_reason is StopReason.LENGTH for answer in answers.values()),
            bad=tuple(self._error(rows[n], error) for n, error in refused.items()),
            earlier=len(answers.keys() & earlier),
            tokens=sum(answer.usage.completion_tokens for n, answer in answers.items() if n not in earlier),
            seconds=seconds,
        )


def _parse_line(number: int, line: bytes, *, plain: bool) -> Row:
    row: Row = {"line": number}
    where = f"line {number}"
    try:
        fields = {"question": decode_utf8(line, where).strip()} if plain else json_object(line, where)
    except FileError as error:
        return row | {"error": str(error).removeprefix(where).lstrip(": ")}
    question, id_ = fields.get("question"), fields.get("id")
    if not isinstance(question, str) or not question.strip():
        return row | {"error": f"'question' must be a non-empty string, not {shorten(question)}"}
    if id_ is not None and (isinstance(id_, bool) or not isinstance(id_, str | int)):
        return row | {"error": f"'id' must be a string or an integer, not {shorten(id_)}"}
    return row | ({} if id_ is None else {"id": id_}) | {"question": question}


def _output_line(row: Row, outcome: Answer | str) -> bytes:
    """A row of the output, without timings: they would differ in every run."""
    shown: dict[str, Any] = {"error": outcome} if isinstance(outcome, str) else asdict(outcome)
    if isinstance(outcome, Answer):
        del shown["timings"]
        if not outcome.thinking:
            del shown["thinking"], shown["usage"]["thinking_tokens"]
    return f"{json.dumps(row | shown, ensure_ascii=False)}\n".encode()
