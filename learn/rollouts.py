"""File of rollouts, and the training rows in it: sampled solutions to questions, and which are right.

The first line holds everything that the solutions depend on: model, prompt, sampling and limits. Every other
line is a question. The file grows as questions are done, so an interrupted run resumes from it.

Only questions that are sometimes right teach something. Supervised training learns their right solutions.
Each weighs as much as its advantage in GRPO (arXiv 2402.03300): the outcome, less the question's mean, in
standard deviations. Wrong solutions are left out, as in RAFT, which comes close to GRPO (arXiv 2504.11343):
nothing bounds how unlikely they could become. The natural policy gradient, a single short step, takes both.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, TypeAdapter, ValidationError

from ..convert.adapter.adapter import adapter_sha256
from ..errors import RequestError, ThirteenError, shorten
from ..files.journal import Journal, parse_identity
from ..files.json_file import read_bounded
from ..models.rows import MAX_BYTES, split_rows
from ..runtime.engine.majority_vote import VOTES_MAX
from ..runtime.request import Sampling
from ..stats.bootstrap import PASSAGES_MIN

ROLLOUTS = "rollouts"
# Requirements of a training run on its rollouts, and the meaning of another value.
COMMON = {
    "adapter_sha256": "another adapter",
    "peft_sha256": "another adapter",  # of the folder that the GGUF LoRA was exported from
    "system": "another prompt",
}


@dataclass(frozen=True, slots=True)
class Solution:
    """A sampled solution.

    Attributes:
        tokens: its tokens, without the end-of-generation token.
        ended: whether it ended by itself, not at the limit of tokens.
        right: whether it ended with the right final answer.
    """

    tokens: tuple[int, ...]
    ended: bool
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
    solutions: Annotated[tuple[Solution, ...], Field(max_length=VOTES_MAX)]
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


@dataclass(frozen=True)
class Rollouts:
    """A complete file of rollouts.

    Attributes:
        questions: the questions, in order.
        sampling: temperature, cut-offs and first seed of the solutions; not greedy.
        calculator: whether the calculator completed equations in the solutions.
    """

    questions: tuple[QuestionRollouts, ...]
    sampling: Sampling
    calculator: bool


def read_rollouts(path: Path, common: Mapping[str, Any]) -> Rollouts:
    """Read a complete file of rollouts.

    Args:
        path: the file.
        common: what the file must have in common with its use: values of keys of COMMON.

    Raises:
        RequestError: the file cannot be read, is no file of rollouts, is cut off, differs in a value of
            `common`, has no valid sampling parameters, or has no question with right and wrong solutions.
    """
    first, *lines = read_bounded(path, MAX_BYTES).split(b"\n")
    identity = parse_identity(first, ROLLOUTS)
    if identity is None:
        raise RequestError(f"{path}: not a file of rollouts, as thirteen rollouts writes it")
    for key, value in common.items():
        if identity.get(key) != value:
            there, here = shorten(identity.get(key)), shorten(value)
            raise RequestError(
                f"{path}: rollouts with {COMMON[key]}: {key} is {there} in the file, {here} now"
            )
    sampling = _sampling(identity, f"{path}: line 1")
    total = identity.get("questions")
    if type(total) is not int:  # 1.0 and true are equal to 1
        raise RequestError(f"{path}: line 1: 'questions' must be an integer, not {shorten(total)}")
    complete = lines[:-1]  # what follows the last newline is empty, or a line that is cut off
    if len(complete) != total or lines[-1:] != [b""]:
        raise RequestError(
            f"{path}: cut off: it holds {len(complete)} of {shorten(total)} questions; thirteen "
            "rollouts with the same options completes it"
        )
    questions = sorted(_parse_questions(path, complete), key=lambda one: one.number)
    if [one.number for one in questions] != list(range(total)):
        raise RequestError(f"{path}: the numbers of its {total} questions are not 0 to {total - 1}")
    if not any(question.sometimes_right for question in questions):
        raise RequestError(f"{path}: no question has right and wrong solutions: only those teach something")
    return Rollouts(tuple(questions), sampling, bool(identity.get("calculator")))


def _sampling(identity: Mapping[str, Any], where: str) -> Sampling:
    try:
        found = Sampling(**{one.name: identity[one.name] for one in fields(Sampling)})
    except KeyError as error:
        raise RequestError(f"{where}: sampling: {error} is missing") from None
    except RequestError as error:
        raise RequestError(f"{where}: {error}") from None
    if found.greedy:
        raise RequestError(f"{where}: sampling: the temperature must be above 0")
    return found


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
        tokens: the solution, without the end-of-generation token.
        weight: its advantage, below 0 for a wrong solution.
        ended: whether the end-of-generation token follows; it does not where the solution was cut off.
    """

    question: str
    prompt_tokens: int
    tokens: tuple[int, ...]
    weight: float
    ended: bool = True


@dataclass(frozen=True)
class RolloutRows:
    """The rows of a file of rollouts.

    Attributes:
        training: the rows to train on.
        held_out: those of the held-out questions.
        calculator: whether the calculator completed equations in the solutions.
    """

    training: list[SampledRow]
    held_out: list[SampledRow]
    calculator: bool


def read_rollout_rows(path: Path, held_out: int, seed: int) -> RolloutRows:
    """Read the right solutions to the questions that are sometimes right, shuffled by question.

    Any quantization of the base may have sampled them, with an adapter or without; see encode_sampled().

    Args:
        path: the file.
        held_out: number of questions to hold out.
        seed: seed of the shuffle.

    Raises:
        RequestError: read_rollouts() raises it.
        ThirteenError: no question is left to train on.
    """
    rollouts = read_rollouts(path, {"system": None})  # as questions are trained with
    questions = [question for question in rollouts.questions if question.sometimes_right]
    training, held = split_rows(questions, held_out, seed, unit="questions that are sometimes right")
    return RolloutRows(_right_rows(training), _right_rows(held), rollouts.calculator)


@dataclass(frozen=True)
class AdvantageRows:
    """Right and wrong solutions.

    Attributes:
        rows: the solutions to the questions that have both.
        questions: number of questions asked, whatever their outcomes.
        calculator: whether the calculator completed equations in the solutions.
        adapter: PEFT folder of the adapter that sampled them; None for the base.
        temperature: at which they were sampled.
    """

    rows: list[SampledRow]
    questions: int
    calculator: bool
    adapter: Path | None
    temperature: float


def read_advantage_rows(path: Path, adapter: Path | None = None) -> AdvantageRows:
    """Read the solutions to the questions that have right and wrong ones.

    A solution that was cut off is a wrong one. A weight is the outcome, less the question's mean outcome,
    divided by the number of its other solutions. Over all questions, those without a row included, the
    weighted sum of a question's scores then estimates the gradient of its chance of a right solution within
    the limit of tokens.

    Args:
        path: the file.
        adapter: PEFT folder of the adapter that must have sampled them; by default none.

    Raises:
        RequestError: see read_rollouts().
        ThirteenError: fewer than 10 questions have right and wrong solutions.
    """
    sampled_by = {"peft_sha256": adapter_sha256(adapter)} if adapter else {"adapter_sha256": None}
    rollouts = read_rollouts(path, {"system": None, **sampled_by})
    sampled: dict[str, list[tuple[int, Solution]]] = {}  # a question may have been asked more than once
    for question in rollouts.questions:
        found = ((question.prompt_tokens, solution) for solution in question.solutions)
        sampled.setdefault(question.question, []).extend(found)
    rows = [row for question, solutions in sampled.items() for row in _advantages(question, solutions)]
    mixed = len({row.question for row in rows})
    if mixed < PASSAGES_MIN:
        raise ThirteenError(
            f"{path}: {mixed} questions have right and wrong solutions; at least {PASSAGES_MIN} are needed"
        )
    asked = sum(len(solutions) > 1 for solutions in sampled.values())
    return AdvantageRows(rows, asked, rollouts.calculator, adapter, rollouts.sampling.temperature)


def _advantages(question: str, solutions: Sequence[tuple[int, Solution]]) -> list[SampledRow]:
    right = sum(solution.right for _, solution in solutions)
    if not 0 < right < len(solutions):
        return []
    mean, others = right / len(solutions), len(solutions) - 1
    return [
        SampledRow(question, prompt_tokens, solution.tokens, (solution.right - mean) / others, solution.ended)
        for prompt_tokens, solution in solutions
    ]


def _right_rows(questions: Sequence[QuestionRollouts]) -> list[SampledRow]:
    return [
        SampledRow(question.question, question.prompt_tokens, solution.tokens, _advantage(question))
        for question in questions
        for solution in question.solutions
        if solution.right and solution.ended
    ]


def _advantage(question: QuestionRollouts) -> float:
    """The advantage of a right solution: (1 - p) / sqrt(p (1 - p)), if p is the fraction of right ones."""
    return math.sqrt(len(question.solutions) / question.right - 1)
