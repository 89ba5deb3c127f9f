"""The project's own format: answers with checked equations, and claims."""

from collections.abc import AsyncIterator
from dataclasses import asdict, dataclass, field
from typing import Annotated

from anyio import CapacityLimiter, to_thread
from pydantic import ConfigDict, Field
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from ...runtime.answer import Answer, Piece, read_value
from ...runtime.arithmetic.equations import StepStream
from ...runtime.engine.conversation import Conversation
from ...runtime.engine.engine import Engine
from ...runtime.options import Options
from ...runtime.request import Request as EngineRequest
from ..call import Call
from ..engine_service import collect_answers, stream_pieces
from ..streams import event_stream, format_event
from .bodies import RequestBody
from .endpoints import Endpoints, Operation
from .fields import MESSAGES_MAX, Answering, Count, EffortName, Json, ModelName, Sampling

_CLAIM_CHARS_MAX = 4096


class EarlierTurn(RequestBody):
    """A question that was asked before, and its answer."""

    question: str
    answer: str


class AnswerRequest(Sampling, Answering):
    """Body of /v1/answer."""

    model_config = ConfigDict(extra="forbid")

    model: ModelName = None
    question: Annotated[str, Field(min_length=1)]
    turns: Annotated[list[EarlierTurn], Field(max_length=MESSAGES_MAX // 2, fail_fast=True)] = Field(
        [],
        description="Earlier turns of the conversation; the oldest are dropped if the context has no room.",
    )
    system: str | None = None
    max_tokens: Count | None = None
    effort: EffortName = "low"
    min_confidence: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.0, description="Confidence below which there is no value, and `sure` is false."
    )
    stream: bool = False


class CheckRequest(RequestBody):
    """Body of /v1/check."""

    model_config = ConfigDict(extra="forbid")

    claim: Annotated[str, Field(max_length=_CLAIM_CHARS_MAX)]


def answer_request(engine: Engine, body: AnswerRequest, options: Options) -> tuple[EngineRequest, int]:
    """Request of the engine for a question, and how many of the oldest turns were dropped for it.

    Raises:
        RequestError: the question is empty, or too long.
    """
    if not body.turns:
        return engine.request(body.question, options), 0
    conversation = Conversation(engine, body.system)
    for turn in body.turns:
        conversation.add(turn.question, turn.answer)
    request = conversation.next_turn(body.question, options).request
    return request, len(body.turns) - len(conversation.messages) // 2


def check_claim(claim: str) -> Json:
    """JSON of an arithmetic claim: its equations, whether they hold, and its final value."""
    value, reading = read_value(claim)
    steps = [asdict(step) for step in reading.steps]
    return {"steps": steps, "verified": reading.verifies(value), "value": value}


def answer_json(model: str, dropped: int, answer: Answer) -> Json:
    """JSON of an answer, with the model name and the token rates."""
    fields = asdict(answer)
    fields["timings"] |= answer.token_rates
    return {"model": model, **fields, "dropped_turns": dropped}


async def answer_events(
    pieces: AsyncIterator[Piece], model: str, dropped: int, question: str
) -> AsyncIterator[tuple[str, Json]]:
    """Events of a streamed answer to a question, which holds all that was said before.

    Yields:
        Event name and data: "tally" for the votes so far, "thinking" for new text of the thought, "text" for
        new text, "step" for an equation when it is complete, and "answer" last.
    """
    stream, sent_steps = StepStream(question), 0
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
            yield "answer", answer_json(model, dropped, piece.answer)


@dataclass
class AnswerEndpoints(Endpoints):
    """/v1/answer and /v1/check.

    Attributes:
        checks: lets one request at a time check arithmetic.
    """

    checks: CapacityLimiter = field(default_factory=lambda: CapacityLimiter(1))
    operations = (
        Operation("POST", "/v1/answer", "answer", AnswerRequest),
        Operation("POST", "/v1/check", "check", CheckRequest),
    )

    async def answer(self, request: Request, body: AnswerRequest) -> Response:
        """Answer a question, with its final value and its equations checked."""
        engine, adapter = self._model(request, body.model)
        options = Options(
            system=body.system,
            min_confidence=body.min_confidence,
            **self._common(request, adapter, body, ("effort", body.effort), max_tokens=body.max_tokens),
            **body.sampling,
        )
        asked = list[tuple[EngineRequest, int]]()

        def prepare() -> list[EngineRequest]:
            asked.append(answer_request(engine, body, options))
            return [asked[0][0]]

        (handle,) = handles = await self._submit(request, prepare)
        model, ((made, dropped),) = Call.of(request).model, asked
        if body.stream:
            events = answer_events(stream_pieces(handle), model, dropped, made.question)
            return event_stream((format_event(data, kind) async for kind, data in events), "error")
        await collect_answers(request, handles)
        return JSONResponse(answer_json(model, dropped, handle.answer()))

    async def check(self, _: Request, body: CheckRequest) -> Response:
        """Check an arithmetic claim, without a model."""
        return JSONResponse(await to_thread.run_sync(check_claim, body.claim, limiter=self.checks))
