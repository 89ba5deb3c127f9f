"""Evaluate a model: answer questions in batches, grade and log the answers, and score them, also in pairs.

The log has a line per question, written as it finishes, from which the run resumes. A resumed run has the
same records as an uninterrupted one; see reproducible_batches.py.
"""

import json
from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from enum import StrEnum
from hashlib import sha256
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import Field

from ...errors import RequestError
from ...files.journal import RecordJournal
from ...files.progress import Progress
from ...runtime.answer import COMPLETE_REASONS, Answer
from ...runtime.batch.reproducible_batches import BatchExecutor, BatchJob, BatchResult, answer_missing
from ...stats.intervals import (
    Interval,
    count_pairs,
    mcnemar,
    paired_difference,
    ratio_interval,
    wilson_interval,
)
from ..environment import ModelFile, ModelSource, describe_model, this_build
from .datasets import QuestionSet
from .prompts import PROMPTS, PromptSettings

LOGGED_RUN = "sitting"  # kind of run in the first line
_NAME_MAX = 24  # characters of up to four bytes each; a file system takes 255 bytes


class Outcome(StrEnum):
    """Outcome of a question or of a sample."""

    CORRECT = "correct"
    WRONG = "wrong"
    TRUNCATED = "truncated"  # max_tokens were used up before the answer ended
    UNPARSED = "unparsed"  # a complete answer without a number
    ERROR = "error"  # the question was rejected, as one that does not fit the context: there is no answer


@dataclass(frozen=True, slots=True)
class Sample:
    """One answer to a question; `verified` if its equations hold and yield the value."""

    value: str | None
    outcome: Outcome
    verified: bool
    tokens: Annotated[int, Field(ge=1, lt=1 << 31)]  # the end-of-generation token counts
    text: str


@dataclass(frozen=True, slots=True)
class QuestionRecord:
    """Result of a question: `value` is of the only sample, or of the majority vote; see Answer."""

    number: int  # in the set, from 0
    expected: str
    value: str | None
    outcome: Outcome
    samples: tuple[Sample, ...]  # in the order of their seeds; empty after an error
    error: str | None = None
    confidence: float | None = None

    @property
    def tokens(self) -> int:
        """Tokens of all samples."""
        return sum(sample.tokens for sample in self.samples)


@dataclass(frozen=True, slots=True)
class Scores:
    """Scores of one model: questions by outcome; accuracy and mean tokens a question exclude errors."""

    questions: int
    correct: int
    wrong: int
    truncated: int
    unparsed: int
    errors: int
    accuracy: Interval
    tokens: float
    first_error: str | None


@dataclass(frozen=True, slots=True)
class PairedScores:
    """Two models on the same questions, without those that failed on either.

    `gained` are the questions that only the adapted model answered correctly, `lost` those of the base
    alone. The difference has Newcombe's interval, the p-value is McNemar's, and the ratio is of tokens a
    question.
    """

    questions: int
    both: int
    gained: int
    lost: int
    neither: int
    difference: Interval
    p_value: float
    tokens_ratio: Interval


def score(records: Sequence[QuestionRecord]) -> Scores:
    """Score a model from the records of all questions, of which at least one is not an error."""
    counts = Counter(record.outcome for record in records)
    answered = [record for record in records if record.outcome is not Outcome.ERROR]
    return Scores(
        questions=len(records),
        correct=counts[Outcome.CORRECT],
        wrong=counts[Outcome.WRONG],
        truncated=counts[Outcome.TRUNCATED],
        unparsed=counts[Outcome.UNPARSED],
        errors=counts[Outcome.ERROR],
        accuracy=wilson_interval(counts[Outcome.CORRECT], len(answered)),
        tokens=float(np.mean([record.tokens for record in answered])),
        first_error=next((record.error for record in records if record.error is not None), None),
    )


def pair_scores(base: Sequence[QuestionRecord], adapted: Sequence[QuestionRecord]) -> PairedScores | None:
    """Compare two models on what both were asked; None if every question failed on one of them."""
    others = {other.number: other for other in adapted}
    pairs = [
        (one, other)
        for one in base
        if (other := others.get(one.number)) and Outcome.ERROR not in {one.outcome, other.outcome}
    ]
    if not pairs:
        return None
    right = ((one.outcome is Outcome.CORRECT, other.outcome is Outcome.CORRECT) for one, other in pairs)
    counts = _, gained, lost, _ = count_pairs(right)
    return PairedScores(
        len(pairs),
        *counts,
        difference=paired_difference(*counts),
        p_value=mcnemar(gained, lost),
        tokens_ratio=ratio_interval(np.array([(other.tokens, one.tokens) for one, other in pairs], float)),
    )


def find_log(job: BatchJob, questions: QuestionSet, folder: Path) -> tuple[Path, dict[str, Any]]:
    """The log of a decided job, by a name that is readable and unique, and all that its answers depend on."""
    settings = job.settings
    assert isinstance(settings, PromptSettings), "questions are asked with a prompt"
    identity = {
        "data_sha256": questions.sha256,
        "questions": len(questions.questions),
        **job.identity,
        "prompt": settings.prompt,
        "prompt_sha256": PROMPTS[settings.prompt].sha256,
        **asdict(this_build()),
    }
    digest = sha256(json.dumps(identity).encode()).hexdigest()[:12]
    names = (job.model.stem, questions.name, settings.prompt)
    return folder / f"{'-'.join(name[:_NAME_MAX] for name in names)}-{digest}.jsonl", identity


@dataclass(frozen=True, slots=True)
class ModelResult:
    """Result of one model: its files, the log with the answer to each question, and its scores over all."""

    file: ModelFile
    records: str
    scores: Scores


def evaluate(
    job: BatchJob, asked: QuestionSet, folder: Path, executor: BatchExecutor, progress: Progress
) -> tuple[ModelResult, Sequence[QuestionRecord]]:
    """Answer the questions that the log in a folder lacks, add a record for each, and score all.

    Raises:
        FileError: a file cannot be run by this build, or a computation failed.
        RequestError: all questions failed, or the log belongs to another run.
        OutputError: the log cannot be written.
    """
    questions, (path, identity) = asked.questions, find_log(job, asked, folder)
    numbered = {number: question.text for number, question in enumerate(questions)}
    with (
        RecordJournal(path, identity, LOGGED_RUN, QuestionRecord, len(questions)) as log,
        closing(answer_missing(job, numbered, log.records, executor)) as results,
    ):
        progress(len(log.records), len(questions))
        for result in results:
            log.add(_record(result, questions[result.number].answer))
            progress(len(log.records), len(questions))
        records = [log.records[number] for number in sorted(log.records)]
    if all(record.outcome is Outcome.ERROR for record in records):
        raise RequestError(
            f"{job.model}: all questions of {asked.source} failed; the first: {records[0].error}"
        )
    source = ModelSource(job.model, job.adapter)
    return ModelResult(describe_model(source), str(path), score(records)), records


def _record(result: BatchResult, expected: str) -> QuestionRecord:
    answer = result.answer
    if answer is None:
        return QuestionRecord(result.number, expected, None, Outcome.ERROR, (), result.error)
    samples = tuple(
        Sample(one.value, grade(one, expected), one.verified, one.usage.completion_tokens, one.text)
        for one in result.samples
    )
    outcome = grade(answer, expected)
    return QuestionRecord(
        result.number, expected, answer.value, outcome, samples, confidence=answer.confidence
    )


def grade(answer: Answer, expected: str) -> Outcome:
    """Grade an answer against the expected number; a truncated answer is never correct."""
    complete = answer.stop_reason in COMPLETE_REASONS
    if complete and answer.value is not None:
        return Outcome.CORRECT if answer.value == expected else Outcome.WRONG
    return Outcome.UNPARSED if complete else Outcome.TRUNCATED
