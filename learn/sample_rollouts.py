"""Samples rollouts in batches: one or more solutions to each question, judged by their final answer."""

import hashlib
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from zlib import crc32

from ..errors import RequestError
from ..files.from_json import RecordJournal
from ..files.progress import Progress, no_progress
from ..models.answer_forms import same_answer
from ..models.rows import TrainingRow
from ..runtime.answer import Answer
from ..runtime.batch.reproducible_batches import BatchJob, BatchResult, GenerationSettings, answer_missing
from ..runtime.effort import VotingRule
from ..runtime.engine.engine import Engine
from ..runtime.prompt.question_prompt import PLAIN, QuestionPrompt
from ..runtime.request import SEED_MAX, Request, StopReason
from ..runtime.validation import check_integer
from .rollouts import ROLLOUTS, SOLUTIONS_MAX, QuestionRollouts, Solution

SLOTS = 48
TEMPERATURE = 0.5  # at 0.7 and 1 the gradients told less of greedy answers
_BATCH_SOLUTIONS = 5 * SLOTS  # so that few slots are idle at the end of a batch


@dataclass(frozen=True, kw_only=True)
class RolloutSettings(GenerationSettings):
    """Settings of rollouts, which are computed in large batches.

    Attributes:
        solutions: sampled solutions to each question.
        prompts: what stands around a question: each in turn for one question after the other.
    """

    solutions: int = 1
    prompts: tuple[QuestionPrompt, ...] = (PLAIN,)

    def __post_init__(self) -> None:
        check_integer("solutions", self.solutions, 1, SOLUTIONS_MAX)
        super().__post_init__()

    @property
    def rule(self) -> VotingRule:
        """All solutions at once."""
        return VotingRule(self.solutions, self.solutions)

    def request(self, engine: Engine, question: str, number: int = 0) -> Request:
        """Make the request that asks a question, with random numbers of its own; see GenerationSettings."""
        request = engine.request(question, **self.options, prompt=self.prompts[number % len(self.prompts)])
        seed = (self.sampling.seed + crc32(question.encode())) % (SEED_MAX + 1)
        return replace(request, logprobs=0, report_end=True, sampling=replace(request.sampling, seed=seed))

    @property
    def batch_size(self) -> int:
        """Questions per batch."""
        return max(_BATCH_SOLUTIONS // self.solutions, 1)


def sample_rollouts(
    job: BatchJob,
    rows: Sequence[TrainingRow],
    output: Path,
    progress: Progress = no_progress,
    *,
    optional: bool = False,
) -> list[QuestionRollouts]:
    """Sample solutions to questions and write them to a file; an interrupted run resumes.

    Args:
        job: model and settings.
        rows: questions with their right answers.
        output: the file, new or of an earlier, interrupted run.
        progress: called with questions done and in all.
        optional: whether none of them need be one that can be asked.

    Returns:
        The questions with their solutions, in the order of the rows.

    Raises:
        RequestError: no question can be asked, or the file belongs to another run.
        OutputError: the file cannot be written.
        FileError: the model or the file is invalid, or the computation failed.
    """
    job = job.decided(output, ROLLOUTS)
    digest = hashlib.sha256(repr([(row.question, row.answer) for row in rows]).encode()).hexdigest()
    identity = {"questions": len(rows), "questions_sha256": digest, **job.identity}
    identity["prompts"] = [prompt.json for prompt in getattr(job.settings, "prompts", ())]
    with RecordJournal(output, identity, ROLLOUTS, QuestionRollouts, len(rows)) as file:
        progress(len(file.records), len(rows))
        numbered = {number: row.question for number, row in enumerate(rows)}
        with closing(answer_missing(job, numbered, file.records)) as results:
            for result in results:
                file.add(_question(result, rows[result.number]))
                progress(len(file.records), len(rows))
        questions = [file.records[number] for number in numbered]
    if not optional and all(question.error for question in questions):
        raise RequestError(f"{output}: no question could be asked; the first: {questions[0].error}")
    return questions


def is_correct(answer: Answer, row: TrainingRow) -> bool:
    """Whether an answer ended before the token limit, with the row's final answer."""
    return answer.stop_reason is not StopReason.LENGTH and same_answer(answer, row)


def _question(result: BatchResult, row: TrainingRow) -> QuestionRollouts:
    solutions = tuple(
        Solution(tuple(tokens), is_correct(answer, row))
        for tokens, answer in zip(result.tokens, result.samples, strict=True)
    )
    prompt_tokens = result.samples[0].usage.prompt_tokens if result.samples else 0
    return QuestionRollouts(result.number, row.question, row.answer, prompt_tokens, solutions, result.error)
