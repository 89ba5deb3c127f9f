"""Response formats of /v1/answer and /v1/check."""

import re
from collections.abc import AsyncIterator
from dataclasses import asdict
from typing import Any

from ...answer import Answer
from ...arithmetic.calculator import Step, check_steps, is_verified
from ...arithmetic.final_answer import final_answer, format_number
from ...engine.handle import Piece

_EQUATION_END = re.compile(r"[.!?,;]\s|\n")  # a number before it cannot grow any more


def answer_json(model: str, answer: Answer) -> dict[str, Any]:
    """JSON of an answer, with the model name and the token rates."""
    usage, timings = answer.usage, answer.timings
    rates = {
        "prefill_tokens_per_s": timings.prefill_tokens_per_s(usage),
        "decode_tokens_per_s": timings.decode_tokens_per_s(usage),
    }
    fields = asdict(answer)
    return {"model": model, **fields, "timings": {**fields["timings"], **rates}}


def check_claim(claim: str) -> dict[str, Any]:
    """JSON of an arithmetic claim: its equations, whether they hold, and its final value."""
    number, found = final_answer(claim), check_steps(claim)
    value = None if number is None else format_number(number)
    return {"steps": [asdict(step) for step in found], "verified": is_verified(found, value), "value": value}


async def answer_events(
    pieces: AsyncIterator[Piece], model: str
) -> AsyncIterator[tuple[str, dict[str, Any]]]:
    """Events of a streamed answer.

    Args:
        pieces: the answer as it is generated.
        model: the model name.

    Yields:
        Event name and data: "text" for new text, "step" for an equation when it is complete, "answer" last.
    """
    text, sent_steps = "", 0
    async for piece in pieces:
        text += piece.text
        if piece.text:
            yield "text", {"text": piece.text}
        found = piece.answer.steps if piece.answer else _complete_steps(text, piece.text)
        for step in found[sent_steps:]:
            sent_steps += 1
            yield "step", asdict(step)
        if piece.answer:
            yield "answer", answer_json(model, piece.answer)


def _complete_steps(text: str, new: str) -> tuple[Step, ...]:
    """Equations that further text cannot change; empty if the new text completes none."""
    ends = [match.end() for match in _EQUATION_END.finditer(text)] if any(map(str.isspace, new)) else []
    return check_steps(text[: ends[-1]]) if ends else ()
