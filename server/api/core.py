"""The core of all formats: the options of a request, and its answers, which each format prints."""

import json
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from time import monotonic
from typing import Any

from anyio import to_thread
from starlette.responses import JSONResponse, Response, StreamingResponse

from ...runtime.answer import Answer, Piece, StopReason
from ...runtime.grammar import Grammar, from_schema
from ...runtime.options import Options, Request
from ...runtime.prompt.prompt_encoder import Message
from ..engine_service import Call
from ..http_errors import HttpError, check_field, to_http_error
from .bodies import Answering, Json, Sampling, read_effort
from .tool_calls import NO_TOOL_USE, AnswerCall, ToolCallParser, ToolUse

FINISH_REASONS = {StopReason.END: "stop", StopReason.STOP: "stop", StopReason.LENGTH: "length"}
EVENT_STREAM_TYPE = "text/event-stream"
COMMENT_S = 10.0  # clients and proxies end a connection on which nothing comes, some after 15 s
_HEADERS = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}  # no buffering in proxies


def answer_options(call: Call, body: Answering, effort: str | bool, **max_tokens: int | None) -> Json:
    """Options that all formats have; HttpError 400 if the effort samples more than the server allows."""
    most, (votes, think) = call.service.limits.answers, read_effort(effort, thinks=call.engine.thinks)
    answers = votes.rule.answers
    check_field(answers <= most, "effort", f"{votes} samples up to {answers} answers, at most {most} here")
    return {
        "adapter": call.adapter,
        "namespace": call.key.namespace,
        "effort": votes,
        "think": think,
        "think_budget": body.think_budget,
        "max_tokens": call.max_tokens(call.engine.default_max_tokens, **max_tokens),
        "calculator": body.calculator,
    }


def chat_request(
    call: Call, messages: Sequence[Message], tools: ToolUse, sampling: Sampling, options: Json
) -> Request:
    """The engine's request; with tools, or without a number in the question, nothing is voted on."""
    question = next((message.content for message in reversed(messages) if message.role == "user"), "")
    options |= sampling.sampling | {
        "effort": options["effort"].for_question("" if tools.tools else question),
        "grammar": tools.grammar(options.get("grammar")),
        "stop_repeated_calls": bool(tools.tools),
    }
    return call.engine.chat(messages, Options(**options), tools.template_fields())


def format_grammar(kind: str, schema: Mapping[str, Any] | None, param: str) -> Grammar | None:
    """Grammar for the format of an answer: text, json_object, or json_schema, which alone has a schema.

    `param` is the field of the schema. RequestError: the schema is rejected. HttpError: 400 it is missing, or
    the type takes none.
    """
    valid = (kind == "json_schema") == (schema is not None)
    check_field(valid, param, "is required for the type json_schema and not allowed otherwise")
    return None if kind == "text" else from_schema(schema or {"type": "object"})


@dataclass(frozen=True, slots=True)
class Said:
    """An event of the answers to a request: what is new of one of them; its text is without its calls."""

    index: int
    first: bool  # whether it is the first event of its answer
    piece: Piece
    text: str
    calls: Sequence[AnswerCall]

    @property
    def finish_reason(self) -> str | None:
        """Why the answer ended, None while there may be more."""
        reason = FINISH_REASONS[self.piece.answer.stop_reason] if self.piece.answer else None
        return "tool_calls" if self.calls and reason == "stop" else reason

    @property
    def answer(self) -> Answer:
        """The whole answer, which has ended."""
        assert self.piece.answer
        return self.piece.answer

    @property
    def warning(self) -> Json:
        """The field that tells what of the JSON schema is not enforced; empty if all is."""
        answer = self.piece.answer
        return {"warning": answer.warning} if answer and answer.warning else {}

    def reasoning(self, name: str) -> Json:
        """The field with the votes so far and the thought, if there are any."""
        return {name: self.piece.reasoning} if self.piece.reasoning else {}


class Format(ABC):
    """How a format prints the answers to a request: whole, or as the parts of a stream."""

    media_type = EVENT_STREAM_TYPE

    @abstractmethod
    def whole(self, answers: Sequence[Said]) -> Json:
        """The response, with each answer as one event."""

    def begin(self) -> Iterator[str]:
        """Parts before all others."""
        yield from ()

    @abstractmethod
    def part(self, said: Said) -> Iterator[str]:
        """Parts that tell of an event."""

    def end(self) -> Iterator[str]:
        """Parts after all others."""
        yield from ()

    def failed(self, error: HttpError) -> str:
        """The last part of a stream that failed."""
        return format_event(error.body)


def format_event(data: Any, name: str = "") -> str:
    """Format JSON data as a server-sent event, with an optional event name."""
    return (f"event: {name}\n" if name else "") + f"data: {format_line(data)}\n"


def format_line(data: Any) -> str:
    """Format JSON data as a line, in ASCII: clients take other line ends of Unicode for the end of a line."""
    return f"{json.dumps(data, separators=(',', ':'))}\n"


async def respond(call: Call, form: Format, tools: ToolUse = NO_TOOL_USE, *, stream: bool) -> Response:
    """Respond with the answers of a call in a format."""
    parsers: dict[int, ToolCallParser] = defaultdict(tools.parser)

    def said(index: int, piece: Piece) -> Said:
        return Said(index, index not in parsers, piece, *parsers[index].take(piece))

    async def parts() -> AsyncIterator[str]:
        """The parts of a stream; an exception is its last one. Events have a comment where none comes."""
        sent = monotonic()
        try:
            for part in form.begin():
                yield part
            async for item in call.pieces(COMMENT_S):
                for part in form.part(said(*item)) if item else ():
                    yield part
                    sent = monotonic()
                if form.media_type == EVENT_STREAM_TYPE and monotonic() - sent >= COMMENT_S:
                    sent = monotonic()
                    yield ": computing\n\n"
            for part in form.end():
                yield part
        except Exception as error:
            call.error = to_http_error(error)
            yield form.failed(call.error)

    if stream:
        return StreamingResponse(parts(), headers=_HEADERS, media_type=form.media_type)
    answers = [said(index, piece) for index, piece in enumerate(await call.whole_pieces())]
    return await to_thread.run_sync(lambda: JSONResponse(form.whole(answers)))
