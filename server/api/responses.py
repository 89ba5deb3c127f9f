"""OpenAI's Responses API, without memory: a client sends the whole conversation."""

from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from itertools import count
from time import time
from typing import Annotated, ClassVar, Literal, NamedTuple
from uuid import uuid4

from pydantic import Field
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from ...runtime.answer import Answer, Piece, StopReason
from ...runtime.prompt.prompt_encoder import Message
from ..call import Call
from ..engine_service import collect_answers, stream_pieces
from ..http_errors import HttpError, field_error, to_http_error
from ..streams import event_stream, format_event
from . import fields
from .bodies import RequestBody
from .endpoints import Endpoints, InternalRequest, Operation
from .fields import Json
from .openai import format_grammar, warning_json
from .tool_calls import AnswerCall, ToolUse, parse_call

Event = tuple[str, Json]
# The fields that an item of the input needs, by its type.
_NEEDED = {
    "message": ("role", "content"),
    "function_call": ("call_id", "name", "arguments"),
    "function_call_output": ("call_id", "output"),
    "reasoning": (),
}


class InputItem(RequestBody):
    """A message of the input, a call that the model has made, its result, or a thought, which is left out."""

    type: Literal["message", "function_call", "function_call_output", "reasoning"] = "message"
    id: str | None = None
    status: Literal["in_progress", "completed", "incomplete"] | None = None
    role: Literal["system", "developer", "user", "assistant"] | None = None
    content: fields.Content | None = None
    call_id: str | None = None
    name: str | None = None
    arguments: str | None = Field(None, description="A JSON object, as text.")
    output: fields.Content | None = None
    summary: fields.MessageList[Json] = Field([])


class FunctionTool(fields.FunctionDefinition):
    """A tool of a request: a function of the client."""

    type: Literal["function"]


class FunctionChoice(RequestBody):
    """A function that the model must call."""

    type: Literal["function"]
    name: fields.FunctionName


class TextFormat(RequestBody):
    """Format of an answer."""

    type: Literal["text", "json_object", "json_schema"] = "text"
    name: Annotated[str, Field(min_length=1, max_length=64)] | None = None
    description: str | None = None
    schema_: fields.Schema | None = Field(None, alias="schema", description="Required for json_schema.")
    strict: bool | None = None


class TextConfig(RequestBody):
    """Configuration of an answer's text."""

    format: TextFormat = TextFormat.model_validate({})


class ReasoningConfig(RequestBody):
    """How much is computed for an answer."""

    effort: fields.EffortName = "low"
    summary: Literal["auto", "concise", "detailed"] | None = None


class ResponseRequest(fields.Sampling, fields.Answering):
    """Body of /v1/responses."""

    refused: ClassVar[dict[str, str]] = {
        "background": "use stream",
        "conversation": "send the whole conversation as input",
        "max_tokens": "use max_output_tokens",
        "prompt": "use instructions and input",
        "response_format": "use text.format",
        **dict.fromkeys(("n", "stop", "top_logprobs"), "use /v1/chat/completions"),
    }

    model: fields.ModelName = None
    input: str | Annotated[fields.MessageList[InputItem], Field(min_length=1)]
    instructions: str | None = Field(None, description="System prompt.")
    tools: fields.ToolList[FunctionTool] = Field([])
    tool_choice: fields.ToolChoiceWord | FunctionChoice = "auto"
    parallel_tool_calls: bool = Field(True, description="Whether an answer may have several calls.")
    max_output_tokens: fields.Count | None = None
    previous_response_id: str = Field("", description="Refused: nothing is stored.")
    text: TextConfig = TextConfig()
    reasoning: ReasoningConfig = ReasoningConfig()
    stream: bool = False
    truncation: Literal["disabled"] = "disabled"


def input_messages(body: ResponseRequest) -> list[Message]:
    """Messages of the input; calls belong to the message of the model before them.

    Raises:
        HttpError: 422 an item lacks a field, 400 the arguments of a call are no JSON object.
    """
    messages = [Message("system", body.instructions)] if body.instructions else []
    if isinstance(body.input, str):
        return [*messages, Message("user", body.input)]
    for index, item in enumerate(body.input):
        for name in _NEEDED[item.type]:
            if getattr(item, name) is None:
                raise HttpError(422, f"input[{index}].{name} is missing", param=f"input[{index}].{name}")
        if item.type == "message":
            role = "system" if item.role == "developer" else str(item.role)
            messages.append(Message(role, fields.text_of(item.content)))
        elif item.type == "function_call":
            call = parse_call(
                str(item.call_id), str(item.name), str(item.arguments), f"input[{index}].arguments"
            )
            if not messages or messages[-1].role != "assistant":
                messages.append(Message("assistant", ""))
            messages[-1] = replace(messages[-1], tool_calls=(*messages[-1].tool_calls, call))
        elif item.type == "function_call_output":
            messages.append(Message("tool", fields.text_of(item.output), tool_call_id=item.call_id))
    return messages


def response_request(body: ResponseRequest, tools: ToolUse, common: Json) -> InternalRequest:
    """What a request for a response asks; `common` are options that are not the body's.

    Raises:
        RequestError: an option is invalid, or the schema is rejected.
        HttpError: 400 fields contradict each other.
    """
    written = body.text.format
    if written.type == "json_schema" and written.name is None:
        raise field_error("text.format.name", "is required for the type json_schema")
    return InternalRequest.of(
        input_messages(body),
        tools,
        grammar=tools.grammar(format_grammar(written.type, written.schema_, "text.format.schema")),
        **common,
        **body.sampling,
    )


class _Part(NamedTuple):
    """A part of an item: its type, the item and its field, its events, and more of its fields."""

    type: str
    item: str
    field: str
    event: str
    text_event: str
    extra: Json

    def of(self, text: str) -> Json:
        return {"type": self.type, "text": text, **self.extra}

    def place(self, item: Json) -> Json:
        return {"item_id": item["id"], f"{self.field}_index": 0}


_VOTES = _Part("summary_text", "reasoning", "summary", "reasoning_summary_part", "reasoning_summary_text", {})
_THOUGHT = _Part("reasoning_text", "reasoning", "content", "content_part", "reasoning_text", {})
_TEXT = _Part(
    "output_text", "message", "content", "content_part", "output_text", {"annotations": [], "logprobs": []}
)
_PARTS = {part.type: part for part in (_VOTES, _THOUGHT, _TEXT)}


class ResponseFormat:
    """Writes a response: whole, and as the events of a stream."""

    def __init__(self, body: ResponseRequest, model: str, tools: ToolUse, effort: str) -> None:
        self._body, self._model, self._tools, self._effort = body, model, tools, effort
        self._id, self._created = f"resp_{uuid4().hex}", int(time())
        self._parser, self._output = tools.parser(), list[Json]()

    def response(self, piece: Piece) -> Json:
        """The response with an answer, which is given as one piece."""
        *_, (_, last) = self._add(piece)
        response: Json = last["response"]
        return response

    async def events(self, pieces: AsyncIterator[Piece]) -> AsyncIterator[str]:
        """Events of a streamed response; if it fails, the last one says so."""
        numbers = count()

        def event(name: str, fields: Json) -> str:
            kind = f"response.{name}"
            return format_event({"type": kind, "sequence_number": next(numbers), **fields}, kind)

        try:
            for name in ("created", "in_progress"):
                yield event(name, {"response": self._response("in_progress")})
            async for piece in pieces:
                for name, fields in self._add(piece):
                    yield event(name, fields)
        except Exception as error:
            failure = {"code": "server_error", "message": to_http_error(error).message}
            yield event("failed", {"response": self._response("failed", error=failure, output=[])})

    def _add(self, piece: Piece) -> Iterator[Event]:
        """Add a piece of the answer to the output; the last event has the whole response."""
        text, calls = self._parser.take(piece)
        yield from self._write(_VOTES, piece.reasoning.removesuffix(piece.thinking))
        yield from self._write(_THOUGHT, piece.thinking)
        yield from self._write(_TEXT, text)
        if answer := piece.answer:
            if not calls and (not self._output or self._output[-1]["type"] != "message"):
                yield from self._begin(_TEXT)  # an answer without text
            status = "incomplete" if answer.stop_reason is StopReason.LENGTH else "completed"
            yield from self._end(status=status, **warning_json(answer))
            for call in calls:
                yield from self._call(call)
            details = {"reason": "max_output_tokens"} if status == "incomplete" else None
            yield (
                status,
                {"response": self._response(status, usage=_usage(answer), incomplete_details=details)},
            )

    def _write(self, part: _Part, text: str) -> Iterator[Event]:
        if not text:
            return
        if not self._output or not self._output[-1].get(part.field) or self._output[-1]["type"] != part.item:
            yield from self._begin(part)
        item = self._output[-1]
        item[part.field][0]["text"] += text
        more: Json = {"logprobs": []} if part is _TEXT else {}
        yield f"{part.text_event}.delta", self._at(part.place(item)) | {"delta": text, **more}

    def _begin(self, part: _Part) -> Iterator[Event]:
        """Begin a part, and its item if that is another one."""
        if not self._output or self._output[-1]["type"] != part.item:
            yield from self._end()
            kind: Json = {"summary": []} if part.item == "reasoning" else _MESSAGE
            prefix = "rs" if part.item == "reasoning" else "msg"
            self._output.append({"type": part.item, "id": f"{prefix}_{uuid4().hex}", **kind})
            yield "output_item.added", self._at({"item": self._output[-1]})
        item = self._output[-1]
        item[part.field] = [part.of("")]
        yield f"{part.event}.added", self._at(part.place(item)) | {"part": part.of("")}

    def _end(self, **fields: object) -> Iterator[Event]:
        """End the last item; the fields are those of a message."""
        if not self._output:
            return
        item = self._output[-1]
        for made in (*item.get("summary", ()), *item.get("content", ())):
            part = _PARTS[made["type"]]
            place = self._at(part.place(item))
            more: Json = {"logprobs": []} if part is _TEXT else {}
            yield f"{part.text_event}.done", place | {"text": made["text"], **more}
            yield f"{part.event}.done", place | {"part": made}
        item |= fields if item["type"] == "message" else {}
        yield "output_item.done", self._at({"item": item})

    def _call(self, call: AnswerCall) -> Iterator[Event]:
        """All events of a call: it comes as a whole."""
        item: Json = {"type": "function_call", "id": call.id.replace("call_", "fc_"), "call_id": call.id}
        item |= {"name": call.name, "arguments": call.arguments, "status": "completed"}
        self._output.append(item)
        yield "output_item.added", self._at({"item": item | {"arguments": "", "status": "in_progress"}})
        place = self._at({"item_id": item["id"]})
        yield "function_call_arguments.delta", place | {"delta": call.arguments}
        yield "function_call_arguments.done", place | {"name": call.name, "arguments": call.arguments}
        yield "output_item.done", self._at({"item": item})

    def _at(self, fields: Json) -> Json:
        return {"output_index": len(self._output) - 1, **fields}

    def _response(self, status: str, **fields: object) -> Json:
        body, choice = self._body, self._body.tool_choice
        return {
            "id": self._id,
            "object": "response",
            "created_at": self._created,
            "model": self._model,
            "status": status,
            "error": None,
            "incomplete_details": None,
            "instructions": body.instructions,
            "max_output_tokens": body.max_output_tokens,
            "metadata": {},
            "output": self._output,
            "parallel_tool_calls": self._tools.several,
            "previous_response_id": None,
            "reasoning": {"effort": self._effort, "summary": None},
            "store": False,
            "temperature": body.temperature or 0.0,
            "text": body.text.model_dump(by_alias=True, exclude_none=True),
            "tool_choice": choice.model_dump() if isinstance(choice, FunctionChoice) else choice or "auto",
            "tools": [tool.model_dump() for tool in body.tools],
            "top_p": body.top_p,
            "truncation": "disabled",
            "usage": None,
            **fields,
        }


_MESSAGE: Json = {"status": "in_progress", "role": "assistant", "content": []}


def _usage(answer: Answer) -> Json:
    usage = answer.usage
    return {
        "input_tokens": usage.prompt_tokens,
        "input_tokens_details": {"cached_tokens": usage.cached_tokens},
        "output_tokens": usage.completion_tokens,
        "output_tokens_details": {"reasoning_tokens": usage.thinking_tokens},
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
    }


class ResponsesEndpoints(Endpoints):
    """/v1/responses."""

    operations = (Operation("POST", "/v1/responses", "create_response", ResponseRequest),)

    async def create_response(self, request: Request, body: ResponseRequest) -> Response:
        """Answer a conversation."""
        if body.previous_response_id:
            raise field_error(
                "previous_response_id", "is not supported: send the whole conversation as input"
            )
        engine, adapter = self._model(request, body.model)
        choice = body.tool_choice
        named = None if isinstance(choice, str) else choice.name
        tools = ToolUse.of(body.tools, engine, choice, named, several=body.parallel_tool_calls)
        effort = "reasoning.effort", body.reasoning.effort
        common = self._common(request, adapter, body, effort, max_output_tokens=body.max_output_tokens)
        handles = await self._ask(request, lambda: response_request(body, tools, common))
        written = ResponseFormat(body, Call.of(request).model, tools, common["effort"])
        if body.stream:
            return event_stream(written.events(stream_pieces(handles[0])), "error")
        (piece,) = await collect_answers(request, handles)
        return JSONResponse(written.response(piece))
