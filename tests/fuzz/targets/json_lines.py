"""JSON lines: the questions of a batch, question sets, and training rows."""

import json
from collections.abc import Generator, Iterable
from dataclasses import replace
from pathlib import Path
from random import Random

from thirteen.bench.accuracy.datasets import load_question_set
from thirteen.files.json_file import numbered_lines
from thirteen.models.rows import read_rows
from thirteen.runtime.batch.batch_file import BatchFile
from thirteen.runtime.batch.reproducible_batches import (
    ENGINE,
    BatchJob,
    BatchResult,
    BatchSettings,
    QuestionBatch,
)

from ...runtime.fixed_settings import FIXED
from ..mutators import mutate_json
from ..target import BASE, Target, accepts, scratch_file

_JOB = BatchJob(BASE, None, BatchSettings(), 1, replace(ENGINE, **FIXED))


def check(data: bytes) -> bool:
    path = scratch_file("rows.jsonl", data)
    accepted = [
        accepts(_answer, path),
        accepts(load_question_set, str(path)),
        accepts(read_rows, path),
        accepts(read_rows, path, ("answer",)),
    ]
    return any(accepted)


def _answer(path: Path) -> None:
    """Each line of the file has a line in the output, with its number and its id."""
    output = path.with_name("answers.jsonl")
    output.unlink(missing_ok=True)
    report = BatchFile(path, output, skip_bad=True).answer(_JOB, executor=_refuse)
    rows = [json.loads(line) for line in output.read_bytes().splitlines()]
    lines = list(numbered_lines(path.read_bytes()))
    assert report.rows == len(rows) and [row["line"] for row in rows] == [number for number, _ in lines]
    for row, (_, line) in zip(rows, lines, strict=True):
        if row["error"] == "not asked":
            asked = json.loads(line)
            assert (row["question"], row.get("id")) == (asked["question"], asked.get("id"))


def _refuse(job: BatchJob, batches: Iterable[QuestionBatch]) -> Generator[BatchResult, None, None]:
    for batch in batches:
        yield from (BatchResult(number, error="not asked") for number in batch)


def mutate(data: bytes, random: Random, words: tuple[str, ...]) -> bytes:
    """Change, repeat or remove a line."""
    lines = data.split(b"\n")
    at = random.randrange(len(lines))
    lines[at : at + 1] = random.choice(((mutate_json(lines[at], random, words),), (lines[at],) * 2, ()))
    return b"\n".join(lines)


TARGET = Target(check, mutate=mutate)
