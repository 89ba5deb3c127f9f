"""Files of rollouts: sampled solutions to questions, which are right, and how much each weighs.

The first line holds everything that the solutions depend on: model, prompt, sampling and limits. Every other
line is a question. The file grows as questions are done, so an interrupted run resumes from it.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, TypeAdapter, ValidationError

from ..errors import RequestError
from ..files.journal import Journal

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


_QUESTION = TypeAdapter(QuestionRollouts)


class RolloutFile(Journal):
    """The file while it is written.

    Attributes:
        questions: the questions that are done, by number.
    """

    def __init__(self, path: Path, identity: Mapping[str, Any]) -> None:
        """Read the questions that an earlier run has done; the first `add` creates the file.

        Args:
            path: the file.
            identity: everything that the solutions depend on, as values that JSON can hold, with the number
                of `questions`.

        Raises:
            RequestError: the file belongs to another run, or is damaged.
        """
        super().__init__(path, identity, ROLLOUTS)
        self.questions = {one.number: one for one in _parse_questions(path, self.lines[1:])}

    def add(self, question: QuestionRollouts) -> None:
        """Write a question to disk.

        Raises:
            OutputError: it cannot be written, or another process is writing.
        """
        self.record(asdict(question))
        self.questions[question.number] = question


def _parse_questions(path: Path, lines: Sequence[bytes]) -> Iterator[QuestionRollouts]:
    for number, line in enumerate(lines, 2):
        try:
            yield _QUESTION.validate_json(line, strict=True)
        except ValidationError:
            raise RequestError(f"{path}: line {number}: not a question with its solutions") from None


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
