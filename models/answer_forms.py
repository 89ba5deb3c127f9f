"""Forms of final answers: numbers, texts and JSON values, and when two are the same.

Texts are compared after normalization: Unicode's NFKC, without case, white space as one space, without
quotation marks, asterisks and backquotes around them or a full stop at the end. JSON is compared by value:
the order of names does not count, and 2.0 is 2.
"""

import json
import re
import unicodedata
from typing import Any

from ..runtime.answer import Answer
from ..runtime.arithmetic.final_answer import format_number, parse_number
from .rows import JSON, TEXT, TrainingRow

_FENCED = re.compile(r"```(?:json)?\s*(.*?)\s*```", re.DOTALL)
_OPEN_FENCE = re.compile(r"\A\s*```(?:json)?|```\s*\Z")
_CUE = re.compile(r"\A(?:the )?(?:final )?answer(?: is|:)+\s*", re.IGNORECASE)


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
    """JSON in a canonical form; None if the text is none."""
    blocks = _FENCED.findall(text)
    try:
        value = json.loads(blocks[-1] if blocks else _OPEN_FENCE.sub("", text), parse_float=_number)
        return json.dumps(value, sort_keys=True)
    except (ValueError, RecursionError):
        return None


def _number(text: str) -> Any:
    value = float(text)
    return int(value) if value.is_integer() else value
