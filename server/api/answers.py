"""The project's own format: answers with checked equations, and claims."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Annotated

from anyio import to_thread
from pydantic import Field
from starlette.responses import JSONResponse, Response

from ...runtime.answer import Answer, read_value
from ...runtime.engine.conversation import Conversation
from ...runtime.options import Options, Request
from ..engine_service import Call
from ..http_errors import HttpError
from . import bodies
from .bodies import Json, RequestBody
from .core import Format, Said, answer_options, format_event, respond


class EarlierTurn(RequestBody):
    """A question that was asked before, and its answer."""

    question: str
    answer: str


class AnswerRequest(bodies.Sampling, bodies.Answering):
    """Body of /v1/answer."""

    model: bodies.ModelName = None
    question: Annotated[str, Field(min_length=1)]
    turns: bodies.MessageList[EarlierTurn] = Field([], description="The oldest are dropped without room.")
    system: str | None = None
    max_tokens: bodies.Count | None = None
    effort: bodies.EffortName = "low"
    min_confidence: Annotated[float, Field(ge=0, lt=1)] = 0.0  # below this there is no value
    stream: bool = False


class CheckRequest(RequestBody):
    """Body of /v1/check."""

    claim: Annotated[str, Field(max_length=4096)]


class AnswerFormat(Format):
    """Prints an answer: whole, or as events.

    The events are "tally" for the votes so far, "thinking" for new text of the thought, "text" for new text,
    and "answer" last.

    Attributes:
        dropped: how many of the oldest turns were dropped.
    """

    def __init__(self, model: str) -> None:
        self._model, self.dropped = model, 0

    def whole(self, answers: Sequence[Said]) -> Json:
        return self._describe(answers[0].answer)

    def part(self, said: Said) -> Iterator[str]:
        if said.piece.tally:
            yield format_event(asdict(said.piece.tally), "tally")
        for name in ("thinking", "text"):
            if text := getattr(said.piece, name):
                yield format_event({"text": text}, name)
        if said.piece.answer:
            yield format_event(self._describe(said.answer), "answer")

    def failed(self, error: HttpError) -> str:
        return format_event(error.body, "error")

    def _describe(self, answer: Answer) -> Json:
        described = asdict(answer)
        described["timings"] |= answer.timings.token_rates(answer.usage)
        return {"model": self._model, **described, "dropped_turns": self.dropped}


async def answer(call: Call, body: AnswerRequest) -> Response:
    """Answer a question, with its final value and its equations checked."""
    form = AnswerFormat(call.model)
    given = answer_options(call, body, body.effort, max_tokens=body.max_tokens) | body.sampling
    options = Options(system=body.system, min_confidence=body.min_confidence, **given)

    def prepare() -> list[Request]:
        if not body.turns:
            return [call.engine.request(body.question, options)]
        conversation = Conversation(call.engine, body.system)
        for turn in body.turns:
            conversation.add(turn.question, turn.answer)
        request = conversation.next_turn(body.question, options).request
        form.dropped = len(body.turns) - len(conversation.messages) // 2
        return [request]

    await call.submit(prepare)
    return await respond(call, form, stream=body.stream)


async def check(call: Call, body: CheckRequest) -> Response:
    """Check an arithmetic claim, without a model."""
    value, reading = await to_thread.run_sync(read_value, body.claim, limiter=call.service.preparing)
    steps = [asdict(step) for step in reading.steps]
    return JSONResponse({"steps": steps, "verified": reading.verifies(value), "value": value})
