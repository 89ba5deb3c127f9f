"""The core of all formats: what a request asks, and its answers, which each format prints in its own way."""

from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from anyio import to_thread
from starlette.responses import JSONResponse, Response

from ...runtime.answer import Piece, StopReason, Usage
from ...runtime.engine.engine import Engine
from ...runtime.grammar import Grammar, from_schema
from ...runtime.options import Options, Request
from ...runtime.prompt.prompt_encoder import Message
from ..engine_service import Call
from ..http_errors import HttpError, field_error
from ..streams import EVENT_STREAM_TYPE, format_event, stream_response
from .fields import Answering, Json, Sampling, read_effort
from .tool_calls import AnswerCall, ToolCallParser, ToolUse

FINISH_REASONS = {StopReason.END: "stop", StopReason.STOP: "stop", StopReason.LENGTH: "length"}


@dataclass(frozen=True, slots=True)
class InternalRequest:
    """What every format asks: so many answers to a conversation."""

    messages: Sequence[Message]
    options: Options
    tools: ToolUse
    answers: int = 1

    def requests(self, engine: Engine) -> list[Request]:
        """Requests of the engine, one for each answer.

        Raises:
            RequestError: the chat template rejects the conversation, or an option is invalid for the engine.
        """
        request = engine.chat(self.messages, self.options, self.tools.template_fields())
        return [replace(request, options=options) for options in request.options.with_seeds(self.answers)]


def answer_options(
    call: Call, body: Answering, effort: tuple[str, str | bool], **max_tokens: int | None
) -> dict[str, Any]:
    """Options that all formats have; `effort` is the name of a field and its value.

    Raises:
        HttpError: 400 the effort samples more than the server allows.
    """
    most, (param, name), thinks = call.service.limits.answers, effort, call.engine.thinks
    asked, think = read_effort(name, thinks=thinks)
    if (answers := asked.rule.answers) > most:
        raise field_error(param, f"{asked} samples up to {answers} answers, at most {most} here")
    return {
        "adapter": call.adapter,
        "namespace": call.key.namespace,
        "effort": asked,
        "think": think,
        "think_budget": body.think_budget,
        "max_tokens": call.max_tokens(call.engine.default_max_tokens, **max_tokens),
        "calculator": body.calculator,
    }


def ask(
    messages: Sequence[Message], tools: ToolUse, sampling: Sampling, answers: int = 1, **options: Any
) -> InternalRequest:
    """Ask with these options; with tools, or without a number in the question, nothing is voted on."""
    question = next((message.content for message in reversed(messages) if message.role == "user"), "")
    options["effort"] = options["effort"].for_question("" if tools.tools else question)
    options["grammar"] = tools.grammar(options.get("grammar"))
    made = Options(stop_repeated_calls=bool(tools.tools), **sampling.sampling, **options)
    return InternalRequest(messages, made, tools, answers)


def format_grammar(kind: str, schema: Json | None, param: str) -> Grammar | None:
    """Grammar for the format of an answer: text, json_object, or json_schema, which alone has a schema.

    `param` is the field of the schema.

    Raises:
        RequestError: the schema is rejected.
        HttpError: 400 the schema is missing, or the type takes no schema.
    """
    if (schema is None) == (kind == "json_schema"):
        raise field_error(param, "is required for the type json_schema and not allowed otherwise")
    return None if kind == "text" else from_schema(schema or {"type": "object"})


@dataclass(frozen=True, slots=True)
class Said:
    """An event of the answers to a request: what is new of one of them; its text is without its calls."""

    index: int
    piece: Piece
    text: str
    calls: Sequence[AnswerCall]

    @property
    def finish_reason(self) -> str | None:
        """Why the answer ended, None while there may be more."""
        reason = FINISH_REASONS[self.piece.answer.stop_reason] if self.piece.answer else None
        return "tool_calls" if self.calls and reason == "stop" else reason

    @property
    def usage(self) -> Usage:
        """Tokens of the answer, which is complete."""
        assert self.piece.answer
        return self.piece.answer.usage

    @property
    def warning(self) -> Json:
        """The field for an answer that violates its JSON schema; empty if the answer is valid."""
        answer = self.piece.answer
        return {"warning": f"schema violated: {answer.violation}"} if answer and answer.violation else {}

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


async def submit(call: Call, parse: Callable[[], InternalRequest]) -> InternalRequest:
    """Submit what a request asks; it is parsed in a worker thread."""
    parsed = list[InternalRequest]()

    def prepare() -> list[Request]:
        parsed.append(parse())
        return parsed[0].requests(call.engine)

    await call.submit(prepare)
    return parsed[0]


async def respond(call: Call, form: Format, tools: ToolUse, *, stream: bool) -> Response:
    """Respond with the answers of a call in a format."""
    parsers: dict[int, ToolCallParser] = defaultdict(tools.parser)

    def said(index: int, piece: Piece) -> Said:
        return Said(index, piece, *parsers[index].take(piece))

    async def parts() -> AsyncIterator[str]:
        for part in form.begin():
            yield part
        async for index, piece in call.pieces():
            for part in form.part(said(index, piece)):
                yield part
        for part in form.end():
            yield part

    if stream:
        return stream_response(call, parts(), form.media_type, form.failed)
    pieces = await call.whole_pieces()
    answers = [said(index, piece) for index, piece in enumerate(pieces)]
    return await to_thread.run_sync(lambda: JSONResponse(form.whole(answers)))
