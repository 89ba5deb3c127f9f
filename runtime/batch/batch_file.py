"""Batch inference: a JSON lines file of questions to a file of answers in the same order, resumable."""

import codecs
import hashlib
import json
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

from ...errors import FileError, OutputError, RequestError, shorten
from ...files.atomic_write import atomic_write
from ...files.journal import Journal
from ...files.json_file import LINES_BYTES_MAX, decode_utf8, json_object, numbered_lines, read_bounded
from ...files.output import check_target
from ...files.progress import Progress, no_progress
from ..request import StopReason
from .reproducible_batches import BatchExecutor, BatchJob, BatchResult, answer_missing

_RUN = "batch"  # key of the identity in journals

Record = dict[str, Any]


@dataclass(frozen=True, slots=True)
class BatchQuestion:
    """A line of the file of questions.

    Attributes:
        line: line number, from 1.
        question: the question; empty if the line is invalid.
        id: the caller's identifier, returned with the answer.
        error: why the line is invalid; None if it is valid.
    """

    line: int
    question: str = ""
    id: str | int | None = None
    error: str | None = None


@dataclass(frozen=True, slots=True)
class BatchReport:
    """Report of a run.

    Attributes:
        output: file of answers.
        rows: lines of the output.
        answered: rows with an answer.
        without_value: answered rows whose answer states no value.
        cut_off: answered rows whose answer was cut off, and so has none either.
        bad: errors of the other rows, each as "FILE: line N: reason".
        earlier: rows that earlier, interrupted runs had answered.
        tokens: completion tokens of this run.
        seconds: wall time of this run.
    """

    output: str
    rows: int
    answered: int
    without_value: int
    cut_off: int
    bad: tuple[str, ...]
    earlier: int
    tokens: int
    seconds: float

    @property
    def questions_an_hour(self) -> float:
        """Throughput of this run."""
        return 3600 * (self.answered - self.earlier) / self.seconds


@dataclass(frozen=True, slots=True)
class BatchFile:
    """A file of questions, and the file of answers that is made of it.

    Each answer is appended to OUTPUT.part when it is finished, from which an interrupted run resumes. The
    output is written when all rows are done.

    Attributes:
        questions: JSON lines with `question` and an optional `id`; or a file of another name than .jsonl or
            .json, whose first line begins with no brace: each of its lines is a question.
        output: file of answers, which must not exist.
        skip_bad: whether invalid lines, and questions that cannot be asked, are reported instead of raised.
    """

    questions: Path
    output: Path
    skip_bad: bool = False

    def answer(
        self, job: BatchJob, executor: BatchExecutor = BatchJob.run, progress: Progress = no_progress
    ) -> BatchReport:
        """Answer the questions; `progress` is called with the rows done and all rows.

        Raises:
            FileError: the file cannot be read or has no question, or a line is invalid and `skip_bad` is off.
            RequestError: a question cannot be asked, or OUTPUT.part is damaged or belongs to another batch.
            OutputError: the output exists or cannot be written.
            ThirteenError: the model or the adapter is invalid, or the computation failed.
        """
        began = perf_counter()
        self.check_output()
        job = job.decided(self.part, _RUN)
        data = read_bounded(self.questions, LINES_BYTES_MAX)
        rows = _parse_questions(self.questions, data, self.skip_bad)
        identity = {"questions_sha256": hashlib.sha256(data).hexdigest(), **job.identity}
        with Journal(self.part, identity, _RUN) as journal:
            saved, new = _saved_records(journal, rows), dict[int, Record]()
            self._check_answered(saved.values())
            self._check_free(saved)
            progress(len(saved), len(rows))
            with closing(_new_records(rows, saved, job, executor)) as records:
                for number, record in records:
                    self._check_answered([record])
                    journal.record({"number": number, **record})
                    new[number] = record
                    progress(len(saved) + len(new), len(rows))
            self._check_free(saved | new)  # another run may have written it meanwhile
            with atomic_write(self.output) as file:
                file.writelines(_output_lines(saved | new))
            report = self._report(saved, new, perf_counter() - began)
            with suppress(OSError):
                self.part.unlink()
        return report

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

    def _check_free(self, records: Mapping[int, Record]) -> None:
        """Raise OutputError if the output exists and is not of these records."""
        if self.output.exists() and self.output.read_bytes() != b"".join(_output_lines(records)):
            raise self._output_exists

    def _check_answered(self, records: Iterable[Record]) -> None:
        """Raise RequestError for the first record of a line that is invalid or cannot be asked."""
        for record in records:
            if "error" in record and not self.skip_bad:
                raise RequestError(self._error(record))

    def _error(self, record: Record) -> str:
        return f"{self.questions}: line {record['line']}: {record['error']}"

    def _report(self, saved: Mapping[int, Record], new: Mapping[int, Record], seconds: float) -> BatchReport:
        records = [record for _, record in sorted({**saved, **new}.items())]
        bad = tuple(self._error(record) for record in records if "error" in record)
        return BatchReport(
            output=str(self.output),
            rows=len(records),
            answered=len(records) - len(bad),
            without_value=sum("error" not in record and record["value"] is None for record in records),
            cut_off=sum(record.get("stop_reason") == StopReason.LENGTH for record in records),
            bad=bad,
            earlier=sum("error" not in record for record in saved.values()),
            tokens=sum(
                record["usage"]["completion_tokens"] for record in new.values() if "error" not in record
            ),
            seconds=seconds,
        )


def _parse_questions(path: Path, data: bytes, skip_bad: bool) -> list[BatchQuestion]:
    rows, data = [], data.removeprefix(codecs.BOM_UTF8)
    plain = path.suffix not in (".jsonl", ".json") and not data.lstrip().startswith(b"{")
    for number, line in numbered_lines(data):
        where = f"{path}: line {number}"
        try:
            if plain:
                rows.append(BatchQuestion(number, decode_utf8(line, where).strip()))
            else:
                rows.append(_parse_question(number, line, where))
        except FileError as error:
            if not skip_bad:
                raise
            rows.append(BatchQuestion(number, error=str(error).removeprefix(where).lstrip(": ")))
    if all(row.error for row in rows):
        raise FileError(f"{path}: has no question" + (f": {rows[0].error}" if rows else ""))
    return rows


def _parse_question(number: int, line: bytes, where: str) -> BatchQuestion:
    value = json_object(line, where)
    question, id_ = value.get("question"), value.get("id")
    if not isinstance(question, str) or not question.strip():
        raise FileError(f"{where}: 'question' must be a non-empty string, not {shorten(question)}")
    if id_ is not None and (isinstance(id_, bool) or not isinstance(id_, str | int)):
        raise FileError(f"{where}: 'id' must be a string or an integer, not {shorten(id_)}")
    return BatchQuestion(number, question, id_)


def _saved_records(journal: Journal, rows: Sequence[BatchQuestion]) -> dict[int, Record]:
    """Return the journal's records by row number."""
    saved = dict[int, Record]()
    for line, entry in enumerate(journal.entries, 2):
        where = f"{journal.path}: line {line}"
        number = entry.pop("number", None)
        if type(number) is not int or not 0 <= number < len(rows) or number in saved:
            raise RequestError(f"{where}: unknown or repeated row {shorten(number)}")
        if not _is_record(entry, rows[number]):
            raise RequestError(f"{where}: not a record of line {rows[number].line} of the questions")
        saved[number] = entry
    return saved


def _is_record(entry: Record, row: BatchQuestion) -> bool:
    """Whether an entry has what a record of the row must have, and the output can hold it."""
    fields = {name: entry[name] for name in ("line", "id", "question") if name in entry}
    if "error" in entry:
        complete = isinstance(entry["error"], str)
    else:
        complete = isinstance(entry.get("text"), str) and isinstance(entry.get("value", 0), str | None)
    try:
        _output_line(entry)
    except (UnicodeEncodeError, RecursionError):
        return False
    return complete and fields == _row_fields(row)


def _new_records(
    rows: Sequence[BatchQuestion], saved: Mapping[int, Record], job: BatchJob, executor: BatchExecutor
) -> Generator[tuple[int, Record], None, None]:
    """Answer the rows without a saved record; yields row number and record."""
    for number, row in enumerate(rows):
        if row.error is not None and number not in saved:
            yield number, {**_row_fields(row), "error": row.error}
    questions = {number: row.question for number, row in enumerate(rows) if row.error is None}
    with closing(answer_missing(job, questions, saved, executor)) as results:
        for result in results:
            yield result.number, {**_row_fields(rows[result.number]), **_result_fields(result)}


def _row_fields(row: BatchQuestion) -> Record:
    fields = {"line": row.line, "id": row.id, "question": row.question or None}
    return {name: value for name, value in fields.items() if value is not None}


def _result_fields(result: BatchResult) -> Record:
    """Return a result's fields, without timings: they would differ in every run."""
    if result.answer is None:
        return {"error": result.error}
    fields = asdict(result.answer)
    del fields["timings"]
    if not result.answer.thinking:
        del fields["thinking"], fields["usage"]["thinking_tokens"]
    return fields


def _output_lines(records: Mapping[int, Record]) -> Iterator[bytes]:
    """Return the lines of the output: the records in the order of the rows."""
    return (_output_line(record) for _, record in sorted(records.items()))


def _output_line(record: Record) -> bytes:
    return f"{json.dumps(record, ensure_ascii=False, default=str)}\n".encode()
