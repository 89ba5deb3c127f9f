"""Solutions of a file of rollouts as training rows: the model learns from its own answers.

Only questions that are sometimes right teach something. Supervised training learns their right solutions.
Each weighs as much as its advantage in GRPO (arXiv 2402.03300): the outcome, less the question's mean, in
standard deviations. Wrong solutions are left out, as in RAFT, which comes close to GRPO (arXiv 2504.11343):
nothing bounds how unlikely they could become. The natural policy gradient, a single short step, takes both.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..convert.adapter.adapter import adapter_sha256
from ..errors import ThirteenError
from ..models.rows import split_rows
from ..runtime.request import Sampling
from ..stats.bootstrap import PASSAGES_MIN
from .rollouts import QuestionRollouts, Solution, read_rollouts


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
    return RolloutRows(_right_rows(training), _right_rows(held), bool(rollouts.identity.get("calculator")))


@dataclass(frozen=True)
class AdvantageRows:
    """Right and wrong solutions.

    Attributes:
        rows: the solutions to the questions that have both.
        questions: number of questions asked, whatever their outcomes.
        calculator: whether the calculator completed equations in the solutions.
        adapter: PEFT folder of the adapter that sampled them; None for the base.
        sampling: how they were sampled.
    """

    rows: list[SampledRow]
    questions: int
    calculator: bool
    adapter: Path | None
    sampling: Sampling


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
    calculator = bool(rollouts.identity.get("calculator"))
    return AdvantageRows(rows, asked, calculator, adapter, rollouts.sampling)


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
