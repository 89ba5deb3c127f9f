"""Response formats of /v1/answer and /v1/check."""

from collections.abc import AsyncIterator
from dataclasses import asdict, dataclass
from typing import Any

from ...runtime.answer import Answer, Piece, read_value
from ...runtime.arithmetic.equations import StepStream


@dataclass(frozen=True, slots=True)
class AnswerFormatter:
    """Formats answers of /v1/answer.

    Attributes:
        model: model name.
        dropped_turns: how many earlier turns of the conversation were dropped.
        question: what was asked, with all that was said before.
    """

    model: str
    dropped_turns: int = 0
    question: str = ""

    def response(self, answer: Answer) -> dict[str, Any]:
        """JSON of an answer, with the model name and the token rates."""
        fields = asdict(answer)
        return {
            "model": self.model,
            **fields,
            "timings": {**fields["timings"], **answer.token_rates},
            "dropped_turns": self.dropped_turns,
        }

    async def events(self, pieces: AsyncIterator[Piece]) -> AsyncIterator[tuple[str, dict[str, Any]]]:
        """Events of a streamed answer.

        Yields:
            Event name and data: "tally" for the votes so far, "thinking" for new text of the thought, "text"
            for new text, "step" for an equation when it is complete, and "answer" last.
        """
        stream, sent_steps = StepStream(self.question), 0
        async for piece in pieces:
            if piece.tally:
                yield "tally", asdict(piece.tally)
            if piece.thinking:
                yield "thinking", {"text": piece.thinking}
            if piece.text:
                yield "text", {"text": piece.text}
            for step in piece.answer.steps[sent_steps:] if piece.answer else stream.feed(piece.text):
                sent_steps += 1
                yield "step", asdict(step)
            if piece.answer:
                yield "answer", self.response(piece.answer)


def check_claim(claim: str) -> dict[str, Any]:
    """JSON of an arithmetic claim: its equations, whether they hold, and its final value."""
    value, steps, verified = read_value(claim)
    return {"steps": [asdict(step) for step in steps], "verified": verified, "value": value}
