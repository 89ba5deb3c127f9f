"""Rollouts: solutions sampled to each question, judged by their final answer, and how much each weighs.

Their files have a line per question, after one with all that they depend on, and runs resume from them.
"""

import hashlib
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from zlib import crc32

from ..errors import RequestError
from ..files.journal import RecordJournal
from ..files.progress import Progress, Run, no_progress
from ..models.rows import TrainingRow, same_answer
from ..runtime.answer import Answer, StopReason
from ..runtime.batch.reproducible_batches import BatchJob, BatchResult, BatchSettings, answer_missing
from ..runtime.engine.engine import Engine
from ..runtime.options import SEED_MAX, Request, VotingRule
from ..runtime.prompt.question_prompt import PLAIN, QuestionPrompt

ROLLOUTS = "rollouts"
SLOTS = 48
FIRST = 4  # solutions to each question; as many more if some are right and some wrong
TEMPERATURE = 0.5  # at 0.7 and 1 the gradients told less of greedy answers
_BATCH_SOLUTIONS = 5 * SLOTS  # so that few slots are idle at the end of a batch


@dataclass(frozen=True, slots=True)
class Solution:
    """A sampled solution: its tokens, with the end-of-generation token unless it was cut off."""

    tokens: tuple[int, ...]
    right: bool


@dataclass(frozen=True, slots=True)
class QuestionRollouts:
    """The solutions to a question, whose number counts from 0; none after an error."""

    number: int
    question: str
    answer: str
    prompt_tokens: int
    solutions: tuple[Solution, ...]
    error: str | None = None

    @property
    def right(self) -> int:
        """Number of right solutions."""
        return sum(solution.right for solution in self.solutions)

    @property
    def sometimes_right(self) -> bool:
        """Whether some solutions are right and some wrong: only then do they teach something."""
        return 0 < self.right < len(self.solutions)


@dataclass(frozen=True)
class SampledRow:
    """A question and a solution that the model sampled; a wrong one has a weight below 0."""

    question: str
    prompt_tokens: int
    tokens: tuple[int, ...]
    weight: float


def advantage_rows(questions: Sequence[QuestionRollouts]) -> list[SampledRow]:
    """The solutions to the questions that have right and wrong ones, in the order of the questions.

    A question may have been asked more than once. A weight is the outcome, less the question's mean outcome,
    divided by the number of its other solutions: over all questions, the weighted sum of a question's scores
    then estimates the gradient of its chance of a right solution. It is shrunk where solutions were added to
    questions that had right and wrong ones: of four and four to 0.90 at a chance of 0.5.
    """
    sampled: dict[str, list[tuple[int, Solution]]] = {}
    for question in questions:
        found = ((question.prompt_tokens, solution) for solution in question.solutions)
        sampled.setdefault(question.question, []).extend(found)
    return [row for question, solutions in sampled.items() for row in _advantages(question, solutions)]


def _advantages(question: str, solutions: Sequence[tuple[int, Solution]]) -> list[SampledRow]:
    right = sum(solution.right for _, solution in solutions)
    if not 0 < right < len(solutions):
        return []
    mean, others = right / len(solutions), len(solutions) - 1
    return [
        SampledRow(question, prompt_tokens, solution.tokens, (solution.right - mean) / others)
        for prompt_tokens, solution in solutions
    ]


@dataclass(frozen=True, kw_only=True)
class RolloutSettings(BatchSettings):
    """Settings of rollouts, which are computed in large batches, with each of the prompts in turn."""

    solutions: int = 1
    prompts: tuple[QuestionPrompt, ...] = (PLAIN,)

    @property
    def rule(self) -> VotingRule:
        """All solutions at once."""
        return VotingRule(self.solutions, self.solutions)

    def request(self, engine: Engine, question: str, number: int = 0) -> Request:
        """Make the request that asks a question, with random numbers of its own; see BatchSettings."""
        options = replace(
            self.options,
            seed=(self.options.seed + crc32(question.encode())) % (SEED_MAX + 1),
            prompt=self.prompts[number % len(self.prompts)],
            logprobs=0,
            report_end=True,
        )
        return engine.request(question, options)

    @property
    def batch_size(self) -> int:
        """Questions per batch."""
        return max(_BATCH_SOLUTIONS // self.solutions, 1)


@dataclass(frozen=True)
class Sampler:
    """Asks a model questions with known answers. All answers are in journals, from which a run resumes.

    `plain` asks without a prompt, greedily, with the same context as with one. It is decided once, as answers
    are compared. `think` is False for a model that can think: a thought takes all the tokens of a solution.
    """

    plain: BatchJob
    folder: Path
    think: bool | None
    run: Run

    def asked(self, prompt: QuestionPrompt) -> QuestionPrompt:
        """How questions are asked with a prompt."""
        return replace(prompt, think=self.think)

    def journal(self, name: str) -> Path:
        """A journal in the folder."""
        return self.folder / f".{name}.jsonl"

    def job(
        self, prompts: Sequence[QuestionPrompt] = (PLAIN,), solutions: int = 1, seed: int = 0
    ) -> BatchJob:
        """Several sampled solutions to a question, or a greedy answer; after the prompts in turn."""
        temperature = TEMPERATURE if solutions > 1 else 0.0
        options = replace(self.plain.settings.options, temperature=temperature, seed=seed)
        asked = tuple(map(self.asked, prompts))
        return replace(
            self.plain, settings=RolloutSettings(solutions=solutions, options=options, prompts=asked)
        )

    def sample(
        self, rows: Sequence[TrainingRow], name: str, title: str, prompt: QuestionPrompt, seed: int
    ) -> list[QuestionRollouts]:
        """Sample FIRST solutions to each question, in the journal of a name."""
        return sample_rollouts(
            self.job([prompt], FIRST, seed), rows, self.journal(name), self.run.stage(title)
        )

    def answer(
        self, rows: Sequence[TrainingRow], name: str, prompt: QuestionPrompt, adapter: Path | None = None
    ) -> list[QuestionRollouts]:
        """Answer questions greedily, in the journal of a name."""
        job = replace(self.job([prompt]), adapter=adapter)
        return sample_rollouts(job, rows, self.journal(name), self.run.stage(name))

    def answer_with_each(
        self, rows: Sequence[TrainingRow], name: str, prompts: Sequence[QuestionPrompt]
    ) -> list[list[QuestionRollouts]]:
        """Answer questions greedily with each of some prompts; a list for each prompt."""
        repeated = [row for row in rows for _ in prompts]
        progress = self.run.stage(f"{len(prompts)} prompt{'s' * (len(prompts) > 1)}")
        found = sample_rollouts(self.job(prompts), repeated, self.journal(name), progress, optional=True)
        return [found[number :: len(prompts)] for number in range(len(prompts))]


def sample_rollouts(
    job: BatchJob,
    rows: Sequence[TrainingRow],
    output: Path,
    progress: Progress = no_progress,
    *,
    optional: bool = False,
) -> list[QuestionRollouts]:
    """Sample solutions to questions, in the order of the rows, into a file; an interrupted run resumes.

    With `optional`, none of them need be one that can be asked.

    Raises:
        RequestError: no question can be asked, or the file belongs to another run.
        OutputError: the file cannot be written.
        FileError: the model or the file is invalid, or the computation failed.
    """
    job = job.decided()
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
