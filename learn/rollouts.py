"""Files of rollouts: sampled solutions to questions, which are right, and how much each weighs.

The first line holds everything that the solutions depend on: model, prompt, sampling and limits. Every other
line is a question. The file grows as questions are done, so an interrupted run resumes from it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

ROLLOUTS = "rollouts"
SOLUTIONS_MAX = 64  # to a question


@dataclass(frozen=True, slots=True)
class Solution:
    """A sampled solution.

    Attributes:
        tokens: its tokens, with the end-of-generation token unless it was cut off.
        right: whether it ended with the right final answer.
    """

    tokens: tuple[int, ...]
    right: bool


@dataclass(frozen=True, slots=True)
class QuestionRollouts:
    """The solutions to a question.

    Attributes:
        number: index of the question in its file, from 0.
        question: its text.
        answer: its right answer.
        prompt_tokens: tokens of its prompt.
        solutions: its solutions; empty after an error.
        error: why it could not be asked; None without an error.
    """

    number: int
    question: str
    answer: str
    prompt_tokens: int
    solutions: Annotated[tuple[Solution, ...], Field(max_length=SOLUTIONS_MAX)]
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
    """A question and a solution that the model sampled.

    Attributes:
        question: the question.
        prompt_tokens: tokens of its prompt in the runtime.
        tokens: the solution, with the end-of-generation token unless it was cut off.
        weight: its advantage, below 0 for a wrong solution.
    """

    question: str
    prompt_tokens: int
    tokens: tuple[int, ...]
    weight: float


def advantage_rows(questions: Sequence[QuestionRollouts]) -> list[SampledRow]:
    """The solutions to the questions that have right and wrong ones, in the order of the questions.

    A question may have been asked more than once. A solution that was cut off is a wrong one. A weight is the
    outcome, less the question's mean outcome, divided by the number of its other solutions. Over all
    questions, those without a row included, the weighted sum of a question's scores then estimates the
    gradient of its chance of a right solution within the limit of tokens. Where solutions were added only to
    questions that had right and wrong ones, it is shrunk: of four and four to 0.90 at a chance of 0.5, and to
    0.65 at 0.1 or 0.9.
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
