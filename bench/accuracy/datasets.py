"""Math question sets: benchmarks from the Hugging Face hub by name, and files of questions and answers.

A named set is one file of one pinned commit, so that all machines ask the same questions.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from random import Random
from typing import Any

from ...errors import FileError, install_hint
from ...files.json_file import read_json_lines
from ...models.catalogue import catalogue
from ...models.hub import download_file
from ...models.rows import parse_row
from ...runtime.arithmetic.final_answer import format_number, parse_number

_SEED = 13

Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Question:
    """A question, and the right number, as format_number() writes it."""

    text: str
    answer: str


@dataclass(frozen=True)
class QuestionSet:
    """Questions in a fixed order, at least one, from a file, or from a commit on the hub."""

    name: str
    source: str
    questions: tuple[Question, ...]

    @cached_property
    def sha256(self) -> str:
        """Hash of questions and answers, independent of the file format."""
        pairs = [(question.text, question.answer) for question in self.questions]
        return sha256(json.dumps(pairs).encode()).hexdigest()

    def subsample(self, limit: int | None) -> "QuestionSet":
        """Take at most `limit` questions, evenly spaced, because many sets are sorted; None takes all."""
        total = len(self.questions)
        count = total if limit is None else min(limit, total)
        return replace(self, questions=tuple(self.questions[n * total // count] for n in range(count)))

    def shuffled(self) -> "QuestionSet":
        """The questions in an order that is always the same."""
        mixed = Random(_SEED).sample(self.questions, len(self.questions))  # noqa: S311
        return replace(self, questions=tuple(mixed))


def load_question_set(source: str) -> QuestionSet:
    """Load a set by its name, or from a file of JSON lines with `question` and `answer`.

    An answer is a number, a string that is one, or a solution with the number after its last "####".

    Raises:
        FileError: there is no such set or file, it has no questions or a malformed row, or a download failed.
    """
    if parse := PARSERS.get(source):
        file = catalogue().question_sets[source]
        path, origin = download_file(**file), f"{file['hub_id']}@{file['revision']}: {file['name']}"
        name, rows = source, _rows(path, origin)
    else:
        path = Path(source)
        if not source or not path.exists():
            names = ", ".join(PARSERS)
            raise FileError(f"{source or repr(source)}: no such file, and not one of the sets {names}")
        name, origin, parse, rows = path.stem, source, _parse_plain, read_json_lines(path)
    questions = tuple(parse(row, where) for where, row in rows)
    if not questions:
        raise FileError(f"{origin}: holds no question")
    return QuestionSet(name, origin, questions)


def _rows(path: Path, origin: str) -> Iterator[tuple[str, Row]]:
    """Read the rows of a file whose hash is known: a JSON list, or Parquet, by the suffix of its name."""
    rows = _parquet(path, origin) if path.suffix == ".parquet" else json.loads(path.read_bytes())
    for number, row in enumerate(rows, 1):
        yield f"{origin}: row {number}", row


def _parquet(path: Path, origin: str) -> Any:
    try:
        from pyarrow.parquet import read_table  # noqa: PLC0415 - an extra
    except ImportError:
        raise FileError(f"{origin}: reading Parquet needs pyarrow: {install_hint('data')}") from None
    return read_table(path).to_pylist()


def _parse_plain(row: Row, where: str) -> Question:
    checked = parse_row({key: row.get(key) for key in ("question", "answer")}, ("answer",), where)
    number = parse_number(checked.answer)
    assert number is not None, "a required answer is a number"
    return Question(row["question"], format_number(number))  # unstripped: logs hold the texts' hash


def _parse_svamp(row: Row, where: str) -> Question:
    body = row["Body"].strip()
    stop = "" if body.endswith((".", "?", "!", ",")) else "."  # many bodies end without a full stop
    return _parse_plain({"question": f"{body}{stop} {row['Question']}", "answer": row["Answer"]}, where)


PARSERS: Mapping[str, Callable[[Row, str], Question]] = {"gsm8k": _parse_plain, "svamp": _parse_svamp}
