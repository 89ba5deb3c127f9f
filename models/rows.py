"""Training rows: JSON lines with a question and a worked solution, a final answer, or both.

Final answers are numbers, texts or JSON values. Texts are compared after normalization: Unicode's NFKC,
without case, white space as one space, without quotation marks, asterisks and backquotes around them or a
full stop at the end. JSON is compared by value: the order of names does not count, and 2.0 is 2.
"""

import json
import random
import re
import unicodedata
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import FileError, OptionError, shorten
from ..files.json_file import parse_json, read_json_lines
from ..runtime.answer import Answer
from ..runtime.arithmetic.final_answer import format_number, parse_number
from ..runtime.options import is_finite

NUMBER, TEXT, JSON = FORMS = ("number", "text", "json")  # of final answers
MAX_BYTES = 1 << 30  # of a file of training data
_FENCED = re.compile(r"```(?:json)?\s*(.*?)\s*```", re.DOTALL)
_OPEN_FENCE = re.compile(r"\A\s*```(?:json)?|```\s*\Z")
_CUE = re.compile(r"\A(?:the )?(?:final )?answer(?: is|:)+\s*", re.IGNORECASE)


@dataclass(frozen=True)
class TrainingRow:
    """A question, its worked solution, and the final answer with its form unless the solution has it."""

    question: str
    solution: str
    answer: str = ""
    form: str = NUMBER

    @property
    def target(self) -> str:
        """The text to train on; `runtime/arithmetic/final_answer.py` reads GSM8K's last line first."""
        return f"{self.solution}\n#### {self.answer}" if self.answer else self.solution


def read_rows(
    path: Path, required: Collection[str] = ("solution",), *, any_form: bool = False
) -> list[TrainingRow]:
    """Read JSON lines with the fields `question`, `solution` and `answer`.

    In GSM8K's own rows the answer is a whole solution: the part after its last `####` counts.

    Args:
        path: JSON lines file.
        required: the fields, `solution` or `answer` or both, that every row must have. A required answer is
            a number.
        any_form: whether answers may also be texts or JSON values: all of one form, which the field
            `answer_type` names, or which is recognized.

    Raises:
        FileError: the file cannot be read or has no rows, or a row is invalid; names the line.
    """
    entries = list(read_json_lines(path, MAX_BYTES))
    if not entries:
        raise FileError(f"{path}: contains no rows")
    form = _find_form(entries) if any_form else NUMBER
    return [parse_row(entry, required, where, form) for where, entry in entries]


def _find_form(entries: Sequence[tuple[str, dict[str, Any]]]) -> str:
    """The form of all answers; FileError if they have several, or none that is known."""
    first = ""
    for where, entry in entries:
        form = str(entry.get("answer_type") or _recognized(entry.get("answer")))
        if form not in FORMS:
            raise FileError(f"{where}: 'answer_type' must be {', '.join(FORMS)}, not {shorten(form)}")
        if form != (first := first or form):
            raise FileError(
                f"{where}: the answer is of the form {form}, and {first} before: give each row the same "
                f"'answer_type', {', '.join(FORMS)}"
            )
    return first


def _recognized(answer: object) -> str:
    if isinstance(answer, dict | list):
        return JSON
    if not isinstance(answer, str):
        return NUMBER
    if parse_number(answer.rpartition("####")[2].strip()) is not None or not answer.strip():
        return NUMBER
    try:
        return JSON if isinstance(json.loads(answer), dict | list) else TEXT
    except (ValueError, RecursionError):
        return TEXT


def parse_row(
    entry: dict[str, Any], required: Collection[str], where: str, form: str = NUMBER
) -> TrainingRow:
    """Check a row that read_rows() describes, or raise FileError, which names `where`."""
    given = {"solution": "", "answer": ""} | {key: value for key, value in entry.items() if value is not None}
    for field in ("question", "solution"):
        value = given.get(field)
        if not isinstance(value, str) or (field in {"question", *required} and not value.strip()):
            raise FileError(f"{where}: {field!r} must be a non-empty string, not {shorten(value)}")
    answer = given["answer"]
    if form == JSON and not isinstance(answer, str):
        answer = json.dumps(answer, ensure_ascii=False)
    if isinstance(answer, float) and answer.is_integer():
        answer = int(answer)  # a column with a gap has numbers as 18.0
    if isinstance(answer, bool) or not (isinstance(answer, str | int) or is_finite(answer)):
        raise FileError(f"{where}: 'answer' must be a string or a number, not {shorten(answer)}")
    text = str(answer).rpartition("####")[2].strip() if form == NUMBER else str(answer).strip()
    if "answer" in required:
        if not text:
            raise FileError(f"{where}: 'answer' is missing")
        if form == NUMBER and parse_number(text) is None:
            raise FileError(f"{where}: 'answer' must be a number, not {shorten(answer)}")
        if form == JSON:
            parse_json(text.encode(), f"{where}: 'answer'")
    return TrainingRow(given["question"].strip(), given["solution"].strip(), text, form)


def split_rows(
    rows: Sequence[TrainingRow], held_out: int, seed: int
) -> tuple[list[TrainingRow], list[TrainingRow]]:
    """Shuffle `rows` by `seed` and split off the first `held_out` of them.

    No question is in both parts: other rows of a held-out question are in neither.

    Returns:
        The remaining rows and the held-out rows.

    Raises:
        OptionError: either part would be empty.
    """
    if not 0 < held_out < len(rows):
        raise OptionError("held_out", f"must be at least 1 and less than the {len(rows)} rows", held_out)
    shuffled = shuffle_rows(rows, seed)
    held = shuffled[:held_out]
    asked = {row.question for row in held}
    rest = [row for row in shuffled[held_out:] if row.question not in asked]
    if not rest:
        raise OptionError("held_out", f"leaves no other question of the {len(rows)} rows", held_out)
    return rest, held


def shuffle_rows(rows: Sequence[TrainingRow], seed: int) -> list[TrainingRow]:
    """Shuffle rows, in the same way on every machine."""
    return random.Random(seed).sample(rows, len(rows))  # noqa: S311 - no secret


def same_answer(answer: Answer, row: TrainingRow) -> bool:
    """Whether an answer states the row's final answer, in the row's form.

    A text is the whole answer, or its last line, from which "The answer is" or "Answer:" is dropped.
    JSON is the whole answer, or its last fenced block.
    """
    if row.form == JSON:
        expected = _json_value(row.answer)
        return expected is not None and _json_value(answer.text) == expected
    if row.form == TEXT:
        lines = answer.text.strip().splitlines() or [""]
        return normalized(row.answer) in {
            normalized(answer.text),
            normalized(_CUE.sub("", lines[-1].strip(" *"))),
        }
    number = parse_number(row.answer)
    return number is not None and answer.value == format_number(number)


def normalized(text: str) -> str:
    """A text in the form in which texts are compared; of punctuation alone it is the whole text."""
    folded = " ".join(unicodedata.normalize("NFKC", text).casefold().split())
    return folded.strip("\"'`*").removesuffix(".").strip("\"'`*") or folded


def _json_value(text: str) -> str | None:
    blocks = _FENCED.findall(text)
    try:
        value = json.loads(blocks[-1] if blocks else _OPEN_FENCE.sub("", text), parse_float=_number)
        return json.dumps(value, sort_keys=True)
    except (ValueError, RecursionError):
        return None


def _number(text: str) -> Any:
    value = float(text)
    return int(value) if value.is_integer() else value
