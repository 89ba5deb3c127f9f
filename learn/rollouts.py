"""File of rollouts: several sampled solutions to each question, and which of them are right.

The first line holds everything that the solutions depend on: model, prompt, sampling and limits. Every other
line is a question. The file grows as questions are done, so an interrupted run resumes from it.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, TypeVar

from ..errors import RequestError, shorten
from ..files.journal import Journal, parse_identity
from ..files.json_file import read_bounded
from ..files.json_lines import refuse_surrogates
from ..models.rows import MAX_BYTES
from ..runtime.engine.majority_vote import VOTES_MAX
from ..runtime.request import Sampling

Value = TypeVar("Value")

_RUN = "rollouts"
# What a search or a training run can require of rollouts, and what another value means.
COMMON = {
    "model_sha256": "another model",
    "adapter_sha256": "another adapter",
    "peft_sha256": "another adapter",  # of the folder that the GGUF LoRA was exported from
    "system": "another prompt",
    "calculator": "another setting of the calculator",
    "max_tokens": "another limit of tokens",
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
        super().__init__(path, identity, _RUN)
        parsed = (_parse(entry, f"{path}: line {number}") for number, entry in enumerate(self.entries, 2))
        self.questions = {one.number: one for one in parsed}

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
        path: the file.
        identity: what its first line holds.
        sampling: temperature, cut-offs and first seed of the solutions; not greedy.
        questions: the questions, in order.
    """

    path: Path
    identity: Mapping[str, Any]
    sampling: Sampling
    questions: tuple[QuestionRollouts, ...]


def read_rollouts(path: Path, common: Mapping[str, Any]) -> Rollouts:
    """Read a complete file of rollouts.

    Args:
        path: the file.
        common: what the file must have in common with its use: values of keys of COMMON.

    Raises:
        RequestError: the file cannot be read, is no file of rollouts, is cut off, differs in a value of
            `common`, has no valid sampling parameters, or has no question with right and wrong solutions.
    """
    identity, lines = _read(path)
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
    questions = [_parse_line(line, f"{path}: line {number}") for number, line in enumerate(complete, 2)]
    questions.sort(key=lambda one: one.number)
    if [one.number for one in questions] != list(range(total)):
        raise RequestError(f"{path}: the numbers of its {total} questions are not 0 to {total - 1}")
    _check_outcomes(questions, path)
    return Rollouts(path, identity, sampling, tuple(questions))


def read_identity(path: Path) -> dict[str, Any]:
    """Read what the solutions in a file of rollouts, complete or not, depend on.

    Raises:
        RequestError: the file cannot be read, or is no file of rollouts.
    """
    return _read(path)[0]


def _read(path: Path) -> tuple[dict[str, Any], list[bytes]]:
    """The identity in the first line, and the other lines."""
    first, *lines = read_bounded(path, MAX_BYTES).split(b"\n")
    identity = parse_identity(first, _RUN)
    if identity is None:
        raise RequestError(f"{path}: not a file of rollouts, as thirteen rollouts writes it")
    return identity, lines


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


def _check_outcomes(questions: list[QuestionRollouts], path: Path) -> None:
    if any(question.sometimes_right for question in questions):
        return
    solutions = sum(len(question.solutions) for question in questions)
    right = sum(question.right for question in questions)
    what = f"none of its {solutions} solutions is {'wrong' if right else 'right'}"
    if 0 < right < solutions:
        what = "each of its questions has either right or wrong solutions"
    raise RequestError(f"{path}: {what}: only questions that are sometimes right teach something")


def _parse_line(line: bytes, where: str) -> QuestionRollouts:
    try:
        return _parse(json.loads(line), where)
    except (ValueError, RecursionError):
        raise RequestError(f"{where}: not a question with its solutions") from None


def _parse(entry: Any, where: str) -> QuestionRollouts:
    try:
        solutions, error = _list(entry["solutions"]), entry["error"]
        if len(solutions) <= VOTES_MAX:
            found = QuestionRollouts(
                _typed(entry["number"], int),
                _typed(entry["question"], str),
                _typed(entry["answer"], str),
                _typed(entry["prompt_tokens"], int),
                tuple(map(_parse_solution, solutions)),
                error if error is None else _typed(error, str),
            )
            refuse_surrogates(f"{found.question}{found.answer}{found.error}", where)
            return found
    except (KeyError, TypeError):
        pass
    raise RequestError(f"{where}: not a question with its solutions")


def _parse_solution(entry: Any) -> Solution:
    tokens = tuple(_typed(token, int) for token in _list(entry["tokens"]))
    return Solution(tokens, _typed(entry["ended"], bool), _typed(entry["right"], bool))


def _typed(value: Any, kind: type[Value]) -> Value:
    """The value, if it is of exactly this type; else a TypeError."""
    if type(value) is not kind:
        raise TypeError
    return value


def _list(value: Any) -> list[Any]:
    return _typed(value, list)
