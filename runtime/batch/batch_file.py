"""A file of questions, and the file of their answers: in the same order, whatever breaks off in between."""

import hashlib
import json
from collections.abc import Generator, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from time import perf_counter
from typing import Any

from ...errors import ModelFileError, OutputError, RequestError
from ...files.atomic_write import atomic_write
from ...files.journal import Journal
from ...files.json_file import read_bounded
from ...files.json_lines import MAX_BYTES, json_object, numbered_lines
from ...files.progress import Progress, no_progress
from .reproducible_batches import AnswerBatches, BatchJob, BatchResult, split_into_batches

_RUN = "batch"  # the word for a run in the journal
_SHOWN = 60  # characters of a value that is not what it should be


@dataclass(frozen=True, slots=True)
class BatchQuestion:
    """A line of the file of questions.

    Attributes:
        line: its number, from 1.
        question: what is asked; empty where the line is bad.
        id: what its owner calls it; None if nothing.
        error: what is wrong with the line; None if nothing is.
    """

    line: int
    question: str = ""
    id: str | int | None = None
    error: str | None = None


@dataclass(frozen=True, slots=True)
class BatchReport:
    """What a batch came to.

    Attributes:
        output: the file of answers.
        rows: its lines.
        answered: rows that have an answer.
        without_value: of these, those in whose answer no number was found.
        bad: what is wrong with the other rows, each as "FILE: line N: what".
        earlier: rows that an earlier run had answered before it was broken off.
        tokens: written now.
        seconds: this run took.
    """

    output: str
    rows: int
    answered: int
    without_value: int
    bad: tuple[str, ...]
    earlier: int
    tokens: int
    seconds: float

    @property
    def questions_an_hour(self) -> float:
        """How many this run answered, by its own time."""
        return 3600 * (self.answered - self.earlier) / self.seconds


def answer_file(  # noqa: PLR0913 - the files of a batch, each by its name
    questions: Path,
    job: BatchJob,
    output: Path,
    *,
    skip_bad: bool = False,
    ask: AnswerBatches = BatchJob.ask,
    progress: Progress = no_progress,
) -> BatchReport:
    """Answer a file of questions.

    Each answer is appended to a file beside the output as it ends, so that a run that was broken off goes on
    where it was. When all are there, the output is written, in the order of the questions.

    Args:
        questions: JSON lines, each with `question` and, if its owner wants it back, `id`.
        job: who is asked, and how.
        output: the file of answers, which is not there yet.
        skip_bad: whether a line that is no question, or one that cannot be asked, is only told of.
        ask: what has a job's waves of questions answered; by default this machine.
        progress: called with the rows that are done and how many there are.

    Raises:
        RequestError: the file cannot be read, or holds no question; a bad line, unless they are skipped; or
            the file beside the output is of another batch.
        OutputError: the output is there already, or cannot be written.
        ThirteenError: whatever is wrong with the model or its adapter, or the computation failed.
    """
    began = perf_counter()
    _check_output(output)
    data = read_bounded(questions, MAX_BYTES)
    rows = _read(questions, data, skip_bad)
    part = output.with_name(f"{output.name}.part")
    with Journal(part, _identity(data, job), _RUN) as journal:
        known = _known(journal, len(rows))
        earlier, tokens = sum("error" not in record for record in known.values()), 0
        progress(len(known), len(rows))
        with closing(_missing(rows, known, job, ask)) as missing:
            for number, record in missing:
                if not skip_bad and "error" in record:
                    raise RequestError(f"{questions}: line {record['line']}: {record['error']}")
                journal.record({"number": number, **record})
                known[number] = record
                tokens += record.get("usage", {}).get("completion_tokens", 0)
                progress(len(known), len(rows))
        records = [known[number] for number in range(len(rows))]
        _write(output, records)
        with suppress(OSError):
            part.unlink()
    return _report(questions, output, records, earlier, tokens, perf_counter() - began)


def _check_output(output: Path) -> None:
    if output.exists():
        raise OutputError(f"{output}: is there already: remove it, or choose another name")
    if not output.absolute().parent.is_dir():
        raise OutputError(f"{output}: the folder {output.absolute().parent} does not exist")


def _read(path: Path, data: bytes, skip_bad: bool) -> list[BatchQuestion]:
    rows = []
    for number, line in numbered_lines(data):
        try:
            rows.append(_row(number, line, f"{path}: line {number}"))
        except RequestError as error:
            if not skip_bad:
                raise
            rows.append(
                BatchQuestion(number, error=str(error).removeprefix(f"{path}: line {number}").lstrip(": "))
            )
    if all(row.error for row in rows):
        raise RequestError(f"{path}: holds no question" + (f": {rows[0].error}" if rows else ""))
    return rows


def _row(number: int, line: bytes, where: str) -> BatchQuestion:
    value = json_object(line, where)
    question, own = value.get("question"), value.get("id")
    if not isinstance(question, str) or not question.strip():
        raise RequestError(
            f"{where}: 'question' must be a text that is not empty, not {question!r:.{_SHOWN}}"
        )
    if own is not None and (isinstance(own, bool) or not isinstance(own, str | int)):
        raise RequestError(f"{where}: 'id' must be a text or a whole number, not {own!r:.{_SHOWN}}")
    try:
        f"{question}{own}".encode()
    except UnicodeEncodeError:
        raise RequestError(f"{where}: half of a surrogate pair, which is no character") from None
    return BatchQuestion(number, question, own)


def _identity(data: bytes, job: BatchJob) -> dict[str, Any]:
    """All that the answers depend on."""
    return {
        "questions_sha256": hashlib.sha256(data).hexdigest(),
        "system": job.terms.system,
        **job.identity,
        "thirteen": version("thirteen"),
        "llama_cpp_python": version("llama-cpp-python"),
    }


def _known(journal: Journal, rows: int) -> dict[int, dict[str, Any]]:
    """The records that there are, by the numbers of their rows."""
    known = {}
    for line, entry in enumerate(journal.entries, 2):
        number = entry.pop("number", None)
        if type(number) is not int or not 0 <= number < rows or number in known:
            raise RequestError(f"{journal.path}: line {line}: not the record of a row, or its second")
        known[number] = entry
    return known


def _missing(
    rows: Sequence[BatchQuestion], known: Mapping[int, Any], job: BatchJob, ask: AnswerBatches
) -> Generator[tuple[int, dict[str, Any]], None, None]:
    """The records of the rows that have none, with the rows' numbers.

    Of a wave that was broken off all is asked, so that its company is the same; what is known stays.
    """
    have = set(known)
    asked_for = []
    for number, row in enumerate(rows):
        if row.error is None:
            asked_for.append(number)
        elif number not in have:
            yield number, {**_told(row), "error": row.error}
    waves = split_into_batches({number: rows[number].question for number in asked_for}, job.terms.wave)
    with closing(ask(job, (wave for wave in waves if not have.issuperset(wave)))) as answers:
        for asked in answers:
            if asked.failed:
                raise ModelFileError(f"{job.model}: {asked.error}")
            if asked.number not in have:
                yield asked.number, {**_told(rows[asked.number]), **_result(asked)}


def _told(row: BatchQuestion) -> dict[str, Any]:
    """What a record says of its row."""
    own = {} if row.id is None else {"id": row.id}
    return {"line": row.line, **own, **({"question": row.question} if row.question else {})}


def _result(asked: BatchResult) -> dict[str, Any]:
    """What a record says of its answer; the time it took is left out, since it is never the same."""
    if asked.taken is None:
        return {"error": asked.error}
    answer = asdict(asked.taken)
    del answer["timings"]
    return answer


def _write(output: Path, records: Sequence[Mapping[str, Any]]) -> None:
    """Write the answers; the file appears whole or not at all."""
    lines = (json.dumps(record, ensure_ascii=False, default=str) for record in records)
    with atomic_write(output) as file:
        file.writelines(f"{line}\n".encode() for line in lines)


def _report(  # noqa: PLR0913, PLR0917 - what a run counted
    questions: Path,
    output: Path,
    records: Sequence[Mapping[str, Any]],
    earlier: int,
    tokens: int,
    seconds: float,
) -> BatchReport:
    bad = tuple(f"{questions}: line {r['line']}: {r['error']}" for r in records if "error" in r)
    return BatchReport(
        output=str(output),
        rows=len(records),
        answered=len(records) - len(bad),
        without_value=sum("error" not in record and record["value"] is None for record in records),
        bad=bad,
        earlier=earlier,
        tokens=tokens,
        seconds=seconds,
    )
