"""Evaluate one model: answer the questions in batches, grade and log the answers, and score them.

The log has a line per question, written as it finishes, from which the run resumes. A resumed run has the
same records as an uninterrupted one; see reproducible_batches.py.
"""

import json
from collections.abc import Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Any

from ...errors import RequestError
from ...files.from_json import RecordJournal
from ...files.progress import Progress
from ...runtime.answer import COMPLETE_REASONS, Answer
from ...runtime.batch.reproducible_batches import BatchExecutor, BatchJob, BatchResult, answer_missing
from ..environment import ModelFile, ModelSource, describe_model, this_build
from .datasets import QuestionSet
from .prompts import PROMPTS, PromptSettings
from .scores import Outcome, QuestionRecord, Sample, Scores, score

LOGGED_RUN = "sitting"  # kind of run in the first line
_NAME_MAX = 24  # characters of up to four bytes each; a file system takes 255 bytes


@dataclass(frozen=True)
class RunConfig:
    """An evaluation run; `folder` is where its log is."""

    source: ModelSource
    question_set: QuestionSet
    settings: PromptSettings
    folder: Path

    @cached_property
    def job(self) -> BatchJob:
        """The run as a job of the batch runtime, decided."""
        return BatchJob(
            self.source.model, self.source.adapter, self.settings, self.settings.threads
        ).decided()

    @cached_property
    def identity(self) -> dict[str, Any]:
        """Everything that the answers depend on, as JSON values. Hashes the files."""
        return {
            "data_sha256": self.question_set.sha256,
            "questions": len(self.question_set.questions),
            **self.job.identity,
            "prompt": self.settings.prompt,
            "prompt_sha256": PROMPTS[self.settings.prompt].sha256,
            **asdict(this_build()),
        }

    @property
    def log(self) -> Path:
        """The log; its name is readable, and unique for the run."""
        digest = sha256(json.dumps(self.identity).encode()).hexdigest()[:12]
        names = (self.source.model.stem, self.question_set.name, self.settings.prompt)
        return self.folder / f"{'-'.join(name[:_NAME_MAX] for name in names)}-{digest}.jsonl"


@dataclass(frozen=True, slots=True)
class ModelResult:
    """Result of one model: its files, the log with the answer to each question, and its scores over all."""

    file: ModelFile
    records: str
    scores: Scores


def evaluate(
    config: RunConfig, executor: BatchExecutor, progress: Progress
) -> tuple[ModelResult, Sequence[QuestionRecord]]:
    """Answer the questions that the log lacks, append a record for each as it finishes, and score all.

    Raises:
        FileError: a file cannot be run by this build, or a computation failed.
        RequestError: all questions failed, or the log belongs to another run.
        OutputError: the log cannot be written.
    """
    questions = config.question_set.questions
    numbered = {number: question.text for number, question in enumerate(questions)}
    with (
        RecordJournal(config.log, config.identity, LOGGED_RUN, QuestionRecord, len(questions)) as log,
        closing(answer_missing(config.job, numbered, log.records, executor)) as results,
    ):
        progress(len(log.records), len(questions))
        for result in results:
            log.add(_record(result, questions[result.number].answer))
            progress(len(log.records), len(questions))
        records = [log.records[number] for number in sorted(log.records)]
    if all(record.outcome is Outcome.ERROR for record in records):
        source = config.question_set.source
        raise RequestError(
            f"{config.source.model}: all questions of {source} failed; the first: {records[0].error}"
        )
    return ModelResult(describe_model(config.source), str(config.log), score(records)), records


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
