"""Questions to learn from: JSON lines with a question and its solution, its final answer, or both."""

import random
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import ThirteenError
from ..files.json_lines import read_json_lines


@dataclass(frozen=True)
class TrainingRow:
    """A question, its worked solution, and the final answer if it is not part of the solution."""

    question: str
    solution: str
    answer: str = ""

    @property
    def target(self) -> str:
        """What the model is to answer; the last line is GSM8K's, which `runtime/answer.py` reads first."""
        return f"{self.solution}\n#### {self.answer}" if self.answer else self.solution


def read_rows(path: Path, needs: Collection[str] = ("solution",)) -> list[TrainingRow]:
    """Read JSON lines with `question`, and `solution` and `answer` as far as they are there.

    Args:
        path: the file.
        needs: which of the latter two every row must have.

    Raises:
        ThirteenError: The file cannot be read, has no rows, or a row is not such an object; names the line.
    """
    rows = [_row(entry, needs, where) for where, entry in read_json_lines(path)]
    if not rows:
        raise ThirteenError(f"{path}: holds no rows to train on")
    return rows


def _row(entry: dict[str, Any], needs: Collection[str], where: str) -> TrainingRow:
    answer = entry.get("answer", "")
    if isinstance(answer, bool) or not isinstance(answer, str | int | float):
        raise ThirteenError(f"{where}: 'answer' must be a text or a number, not {answer!r:.60}")
    entry = {"solution": "", **entry, "answer": str(answer)}
    for field in ("question", "solution"):
        value = entry.get(field)
        empty = not isinstance(value, str) or not value.strip()
        if not isinstance(value, str) or (empty and (field == "question" or field in needs)):
            raise ThirteenError(f"{where}: {field!r} must be a text that is not empty, not {value!r:.60}")
    if "answer" in needs and not entry["answer"].strip():
        raise ThirteenError(f"{where}: 'answer' is missing, and answers are what is scored")
    return TrainingRow(*(entry[field].strip() for field in ("question", "solution", "answer")))


def split_rows(
    rows: Sequence[TrainingRow], held_out: int, seed: int
) -> tuple[list[TrainingRow], list[TrainingRow]]:
    """Deal `rows` into those to train on and `held_out` others, by `seed`.

    Raises:
        ThirteenError: One of the two would be empty.
    """
    if not 0 < held_out < len(rows):
        raise ThirteenError(f"--held-out {held_out}: must leave some of the {len(rows)} rows on either side")
    shuffled = random.Random(seed).sample(rows, len(rows))  # noqa: S311 - wanted: the same on every machine
    return shuffled[held_out:], shuffled[:held_out]
