"""File of rollouts: several sampled solutions to each question, and which of them are right.

The first line holds everything that the solutions depend on: model, prompt, sampling and limits. Every other
line is a question. The file grows as questions are done, so an interrupted run resumes from it.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..errors import RequestError, shorten
from ..files.journal import FORMAT, Journal
from ..files.json_file import read_bounded
from .rows import MAX_BYTES

_RUN = "rollouts"
# What a search or a training run can require of rollouts, and what another value means.
COMMON = {
    "model_sha256": "another model",
    "adapter_sha256": "another adapter",
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
            identity: everything that the solutions depend on, as JSON values, with the number of `questions`.

        Raises:
            RequestError: the file belongs to another run, or is damaged.
        """
        super().__init__(path, json.loads(json.dumps(identity)), _RUN)
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
    """A complete file of rollouts; `identity` is what its first line holds."""

    path: Path
    identity: Mapping[str, Any]
    questions: tuple[QuestionRollouts, ...]


def read_rollouts(path: Path, common: Mapping[str, Any]) -> Rollouts:
    """Read a complete file of rollouts.

    Args:
        path: the file.
        common: what the file must have in common with its use: values of keys of COMMON.

    Raises:
        RequestError: the file cannot be read, is no file of rollouts, is cut off, differs in a value of
            `common`, or has no question with right and wrong solutions.
    """
    first, *lines = read_bounded(path, MAX_BYTES).split(b"\n")
    identity = _read_identity(first, path)
    for key, value in common.items():
        if identity.get(key) != value:
            there, here = shorten(identity.get(key)), shorten(value)
            raise RequestError(
                f"{path}: rollouts with {COMMON[key]}: {key} is {there} in the file, {here} now"
            )
    total = identity.get("questions")
    complete = lines[:-1]  # what follows the last newline is empty, or a line that is cut off
    if len(complete) != total or lines[-1]:
        raise RequestError(
            f"{path}: cut off: it holds {len(complete)} of {shorten(total)} questions; thirteen "
            "rollouts with the same options completes it"
        )
    questions = [_parse_line(line, f"{path}: line {number}") for number, line in enumerate(complete, 2)]
    _check_outcomes(questions, path)
    return Rollouts(path, identity, tuple(sorted(questions, key=lambda one: one.number)))


def _read_identity(line: bytes, path: Path) -> dict[str, Any]:
    try:
        header = json.loads(line)
        if header["format"] == FORMAT:
            return dict(header[_RUN])
    except (ValueError, LookupError, TypeError, RecursionError):
        pass
    raise RequestError(f"{path}: not a file of rollouts, as thirteen rollouts writes it")


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
        solutions = tuple(
            Solution(tuple(map(int, one["tokens"])), bool(one["ended"]), bool(one["right"]))
            for one in entry["solutions"]
        )
        return QuestionRollouts(
            int(entry["number"]),
            str(entry["question"]),
            str(entry["answer"]),
            int(entry["prompt_tokens"]),
            solutions,
            entry["error"],
        )
    except (KeyError, TypeError, ValueError):
        raise RequestError(f"{where}: not a question with its solutions") from None
