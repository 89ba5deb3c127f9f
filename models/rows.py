"""Training rows: JSON lines with a question and a worked solution, a final answer, or both."""

import random
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from ..errors import ThirteenError, shorten
from ..files.json_lines import read_json_lines

MAX_BYTES = 1 << 30  # of a file of training data

Row = TypeVar("Row")


@dataclass(frozen=True)
class TrainingRow:
    """A question, its worked solution, and the final answer unless the solution contains it."""

    question: str
    solution: str
    answer: str = ""

    @property
    def target(self) -> str:
        """The text to train on; `runtime/arithmetic/final_answer.py` reads GSM8K's last line first."""
        return f"{self.solution}\n#### {self.answer}" if self.answer else self.solution


def read_rows(path: Path, required: Collection[str] = ("solution",)) -> list[TrainingRow]:
    """Read JSON lines with the fields `question`, `solution` and `answer`.

    Args:
        path: JSON lines file.
        required: the fields, `solution` or `answer` or both, that every row must have.

    Raises:
        ThirteenError: the file cannot be read or has no rows, or a row is invalid; names the line.
    """
    rows = [_row(entry, required, where) for where, entry in read_json_lines(path, MAX_BYTES)]
    if not rows:
        raise ThirteenError(f"{path}: contains no rows")
    return rows


def _row(entry: dict[str, Any], required: Collection[str], where: str) -> TrainingRow:
    answer = entry.get("answer", "")
    if isinstance(answer, bool) or not isinstance(answer, str | int | float):
        raise ThirteenError(f"{where}: 'answer' must be a string or a number, not {shorten(answer)}")
    entry = {"solution": "", **entry, "answer": str(answer)}
    for field in ("question", "solution"):
        value = entry.get(field)
        if not isinstance(value, str) or (field in {"question", *required} and not value.strip()):
            raise ThirteenError(f"{where}: {field!r} must be a non-empty string, not {shorten(value)}")
    if "answer" in required and not entry["answer"].strip():
        raise ThirteenError(f"{where}: 'answer' is missing, and this command scores answers")
    return TrainingRow(*(entry[field].strip() for field in ("question", "solution", "answer")))


def split_rows(rows: Sequence[Row], held_out: int, seed: int) -> tuple[list[Row], list[Row]]:
    """Shuffle `rows` by `seed` and split off the first `held_out` of them.

    Returns:
        The remaining rows and the held-out rows.

    Raises:
        ThirteenError: either part would be empty.
    """
    if not 0 < held_out < len(rows):
        raise ThirteenError(f"--held-out {held_out}: must be at least 1 and less than the {len(rows)} rows")
    shuffled = shuffle_rows(rows, seed)
    return shuffled[held_out:], shuffled[:held_out]


def shuffle_rows(rows: Sequence[Row], seed: int) -> list[Row]:
    """Shuffle rows, in the same way on every machine."""
    return random.Random(seed).sample(rows, len(rows))  # noqa: S311 - no secret
