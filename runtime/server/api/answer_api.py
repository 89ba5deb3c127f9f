"""Questions and claims as JSON: the shapes of /v1/answer and /v1/check."""

import re
from collections.abc import AsyncIterator
from dataclasses import asdict
from typing import Any

from ...answer import Answer
from ...arithmetic.calculator import Step, steps, verified
from ...arithmetic.final_answer import final_answer, format_number
from ...engine.handle import Piece

# Behind such a place, the number before it goes no further, and so neither does its equation.
_SETTLED = re.compile(r"[.!?,;]\s|\n")


def answer_json(model: str, answer: Answer) -> dict[str, Any]:
    """An answer, and the name of the model that gave it."""
    usage, timings = answer.usage, answer.timings
    speeds = {
        "prefill_tokens_per_s": timings.prefill_tokens_per_s(usage),
        "decode_tokens_per_s": timings.decode_tokens_per_s(usage),
    }
    whole = asdict(answer)
    return {"model": model, **whole, "timings": {**whole["timings"], **speeds}}


def check_claim(claim: str) -> dict[str, Any]:
    """What a claim of arithmetic comes to: its equations, and its final value."""
    number, found = final_answer(claim), steps(claim)
    value = None if number is None else format_number(number)
    return {"steps": [asdict(step) for step in found], "verified": verified(found, value), "value": value}


async def answer_events(
    pieces: AsyncIterator[Piece], model: str
) -> AsyncIterator[tuple[str, dict[str, Any]]]:
    """An answer on its way, as events' names and data: text, each equation once complete, the answer."""
    text, told = "", 0
    async for piece in pieces:
        text += piece.text
        if piece.text:
            yield "text", {"text": piece.text}
        for step in piece.answer.steps[told:] if piece.answer else _complete(text, piece.text)[told:]:
            told += 1
            yield "step", asdict(step)
        if piece.answer:
            yield "answer", answer_json(model, piece.answer)


def _complete(text: str, new: str) -> tuple[Step, ...]:
    """The equations of a text that no more text can change, if the new end of it can have made one so."""
    ends = [found.end() for found in _SETTLED.finditer(text)] if any(map(str.isspace, new)) else []
    return steps(text[: ends[-1]]) if ends else ()
