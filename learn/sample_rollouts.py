"""Samples rollouts in batches: several solutions to each question, judged by their final answer."""

import hashlib
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from ..convert.adapter.export import exported_from
from ..errors import RequestError
from ..files.progress import Progress, no_progress
from ..models.rows import TrainingRow
from ..runtime.answer import Answer
from ..runtime.arithmetic.final_answer import format_number, parse_number
from ..runtime.batch.reproducible_batches import (
    BatchExecutor,
    BatchJob,
    BatchResult,
    run_batches,
    split_into_batches,
)
from ..runtime.request import StopReason
from ..runtime.versions import answer_versions
from .rollouts import ROLLOUTS, QuestionRollouts, RolloutFile, Solution


@dataclass(frozen=True)
class RolloutSummary:
    """What a file of rollouts holds.

    Attributes:
        output: the file.
        questions: number of questions.
        samples: solutions to each question.
        sometimes_right: questions with right and wrong solutions.
        always_right: questions with right solutions only.
        never_right: questions with wrong solutions only.
        errors: questions that could not be asked.
        right: fraction of all solutions that are right.
        tokens: mean tokens of a solution.
    """

    output: str
    questions: int
    samples: int
    sometimes_right: int
    always_right: int
    never_right: int
    errors: int
    right: float
    tokens: float


def sample_rollouts(
    job: BatchJob,
    rows: Sequence[TrainingRow],
    output: Path,
    *,
    executor: BatchExecutor = BatchJob.run,
    progress: Progress = no_progress,
) -> RolloutSummary:
    """Sample solutions to questions and write them to a file; an interrupted run resumes.

    Args:
        job: model and settings, whose votes are the solutions to each question, at least 2.
        rows: questions with their right answers.
        output: the file, new or of an earlier, interrupted run.
        executor: answers batches, BatchJob.run or RayWorkers.run.
        progress: called with questions done and in all.

    Raises:
        RequestError: there is one solution a question, no question can be asked, or the file belongs to
            another run.
        OutputError: the file cannot be written.
        ModelFileError: the model is invalid, or the computation failed.
    """
    settings = job.settings
    if settings.votes < 2:
        raise RequestError(
            f"rollouts: samples must be at least 2, not {settings.votes}: right and wrong ones"
        )
    job = job.with_settings_of(output, ROLLOUTS)
    with RolloutFile(output, rollout_identity(job, rows)) as file:
        progress(len(file.questions), len(rows))
        numbered = {number: row.question for number, row in enumerate(rows)}
        batches = split_into_batches(numbered, settings.batch_size)
        missing = (batch for batch in batches if not file.questions.keys() >= batch.keys())
        with closing(run_batches(job, missing, executor)) as results:
            for result in results:
                if result.number not in file.questions:  # an interrupted batch runs again as a whole
                    file.add(_question(result, rows[result.number]))
                    progress(len(file.questions), len(rows))
        return summarize(output, list(file.questions.values()), settings.votes)


def rollout_identity(job: BatchJob, rows: Sequence[TrainingRow]) -> dict[str, object]:
    """Everything that the solutions depend on, as JSON values. Hashes the model."""
    pairs = [(row.question, row.answer) for row in rows]
    return {
        "questions": len(rows),
        "questions_sha256": hashlib.sha256(repr(pairs).encode()).hexdigest(),
        "system": job.settings.system,
        **job.identity,
        **({"peft_sha256": exported_from(job.adapter)} if job.adapter else {}),
        **answer_versions(),
    }


def is_correct(answer: Answer, row: TrainingRow) -> bool:
    """Whether an answer ended before the token limit, with the row's final answer."""
    expected = parse_number(row.answer)
    ended = answer.stop_reason is not StopReason.LENGTH
    return ended and expected is not None and answer.value == format_number(expected)


def _question(result: BatchResult, row: TrainingRow) -> QuestionRollouts:
    solutions = tuple(
        Solution(tuple(tokens), answer.stop_reason is StopReason.END, is_correct(answer, row))
        for tokens, answer in zip(result.tokens, result.samples, strict=True)
    )
    prompt_tokens = result.samples[0].usage.prompt_tokens if result.samples else 0
    return QuestionRollouts(result.number, row.question, row.answer, prompt_tokens, solutions, result.error)


def summarize(output: Path, questions: Sequence[QuestionRollouts], samples: int) -> RolloutSummary:
    """Count the questions by how often they are right.

    Raises:
        RequestError: no question could be asked.
    """
    asked = [question for question in questions if question.error is None]
    if not asked:
        raise RequestError(f"{output}: no question could be asked; the first: {questions[0].error}")
    solutions = [solution for question in asked for solution in question.solutions]
    return RolloutSummary(
        output=str(output),
        questions=len(questions),
        samples=samples,
        sometimes_right=sum(question.sometimes_right for question in asked),
        always_right=sum(question.right == samples for question in asked),
        never_right=sum(question.right == 0 for question in asked),
        errors=len(questions) - len(asked),
        right=sum(solution.right for solution in solutions) / len(solutions),
        tokens=sum(len(solution.tokens) for solution in solutions) / len(solutions),
    )
