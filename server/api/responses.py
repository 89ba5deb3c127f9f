"""OpenAI's Responses API, without memory: a client sends the whole conversation."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from time import time
from typing import Literal
from uuid import uuid4

from pydantic import Field
from starlette.responses import Response

from ...runtime.options import Request
from ...runtime.prompt.prompt_encoder import Message
from ..engine_service import Call
from ..http_errors import HttpError, check_field
from . import bodies
from .bodies import Json, RequestBody
from .core import Format, Said, answer_options, chat_request, format_event, format_grammar, respond
from .tool_calls import AnswerCall, ToolUse, parse_call

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
    status: str | None = None
    role: Literal["system", "developer", "user", "assistant"] | None = None
    content: bodies.Content | None = None
    call_id: str | None = None
    name: str | None = None
    arguments: str | None = Field(None, description="A JSON object, as text.")
    output: bodies.Content | None = None
    summary: list[Json] = Field([])


class FunctionTool(bodies.FunctionDefinition):
    """A tool of a request: a function of the client."""

    type: Literal["function"]


class FunctionChoice(bodies.NamedFunction):
    """A function that the model must call."""

    type: Literal["function"]


class TextFormat(bodies.SchemaFormat):
    """Format of an answer."""

    type: bodies.FormatType = "text"


class TextConfig(RequestBody):
    """Configuration of an answer's text."""

    format: TextFormat = TextFormat.model_validate({})


class ReasoningConfig(RequestBody):
    """How much is computed for an answer."""

    effort: bodies.EffortName = "low"
    summary: str | None = None


class ResponseRequest(bodies.Sampling, bodies.Answering):
    """Body of /v1/responses."""

    model: bodies.ModelName = None
    input: str | bodies.MessageList[InputItem] = Field(min_length=1)
    instructions: str | None = Field(None, description="System prompt.")
    tools: bodies.ToolList[FunctionTool] = Field([])
    tool_choice: bodies.ToolChoiceWord | FunctionChoice = "auto"
    parallel_tool_calls: bool = Field(True, description="Whether an answer may have several calls.")
    max_output_tokens: bodies.Count | None = None
    previous_response_id: str = Field("", description="Refused: nothing is stored.")
    text: TextConfig = TextConfig()
    reasoning: ReasoningConfig = ReasoningConfig()
    stream: bool = False
    truncation: Literal["disabled"] = "disabled"


def input_messages(body: ResponseRequest) -> list[Message]:
    """Messages of the input; calls belong to the message of the model before them."""
    messages = [Message("system", body.instructions)] if body.instructions else []
    if isinstance(body.input, str):
        return [*messages, Message("user", body.input)]
    for index, item in enumerate(body.input):
        for name in _NEEDED[item.type]:
            check_field(getattr(item, name) is not None, f"input[{index}].{name}", "is missing", 422)
        if item.type == "message":
            role = "system" if item.role == "developer" else str(item.role)
            messages.append(Message(role, bodies.text_of(item.content)))
        elif item.type == "function_call":
            param = f"input[{index}].arguments"
            call = parse_call(str(item.call_id), str(item.name), str(item.arguments), param)
            if not messages or messages[-1].role != "assistant":
                messages.append(Message("assistant", ""))
            messages[-1] = replace(messages[-1], tool_calls=(*messages[-1].tool_calls, call))
        elif item.type == "function_call_output":
            messages.append(Message("tool", bodies.text_of(item.output), tool_call_id=item.call_id))
    return messages


# By the type of an item with text: prefix of its id, field of its part, and events of part and text.
_PARTS = {
    "reasoning": ("rs", "summary", "reasoning_summary_part", "reasoning_summary_text"),
    "message": ("msg", "content", "content_part", "output_text"),
}


class ResponseFormat(Format):
    """Prints a response: whole, and as the events of a stream."""

    def __init__(self, body: ResponseRequest, model: str, effort: str) -> None:
        described = {"instructions", "parallel_tool_calls", "tool_choice", "tools"}
        self._number, self._output = 0, list[Json]()
        self._response: Json = body.model_dump(include=described) | {
            "id": f"resp_{uuid4().hex}",
            "object": "response",
            "created_at": int(time()),
            "model": model,
            "error": None,
            "incomplete_details": None,
            "reasoning": {"effort": effort, "summary": None},
            "store": False,
            "text": body.text.model_dump(by_alias=True, exclude_none=True),
            "usage": None,
        }
        self._response["tool_choice"] = self._response["tool_choice"] or "auto"

    def whole(self, answers: Sequence[Said]) -> Json:
        for _ in self.part(answers[0]):
            pass
        return self._response

    def begin(self) -> Iterator[str]:
        for name in ("created", "in_progress"):
            yield self._event(name, response=self._response | {"status": "in_progress", "output": []})

    def part(self, said: Said) -> Iterator[str]:
        if said.piece.reasoning:
            yield from self._write("reasoning", said.piece.reasoning)
        if said.text or (said.piece.answer and not said.calls):
            yield from self._write("message", said.text)
        if said.piece.answer:
            cut = said.finish_reason == "length"
            status, reason = ("incomplete", {"reason": "max_output_tokens"}) if cut else ("completed", None)
            yield from self._end(status=status, **said.warning)
            for call in said.calls:
                yield from self._call(call)
            end = {"status": status, "output": self._output, "incomplete_details": reason}
            self._response |= end | {"usage": _usage(said)}
            yield self._event(status, response=self._response)

    def failed(self, error: HttpError) -> str:
        failure = {"code": "server_error", "message": error.message}
        response = self._response | {"status": "failed", "error": failure, "output": []}
        return self._event("failed", response=response)

    def _event(self, name: str, /, **fields: object) -> str:
        kind, number = f"response.{name}", self._number
        self._number += 1
        return format_event({"type": kind, "sequence_number": number, **fields}, kind)

    def _item_event(self, name: str, /, **fields: object) -> str:
        return self._event(name, output_index=len(self._output) - 1, **fields)

    def _part_event(self, name: str, /, **fields: object) -> str:
        item = self._output[-1]
        place = {"item_id": item["id"], f"{_PARTS[item['type']][1]}_index": 0}
        return self._item_event(name, **place, **fields)

    def _write(self, kind: str, text: str) -> Iterator[str]:
        prefix, field, event, text_event = _PARTS[kind]
        if not self._output or self._output[-1]["type"] != kind:
            yield from self._end()
            item: Json = {"type": kind, "id": f"{prefix}_{uuid4().hex}", field: []}
            part: Json = {"type": "summary_text", "text": ""}
            if kind == "message":
                item |= {"role": "assistant", "status": "in_progress"}
                part |= {"type": "output_text", "annotations": [], "logprobs": []}
            self._output.append(item)
            yield self._item_event("output_item.added", item=item)
            item[field] = [part]
            yield self._part_event(f"{event}.added", part=part)
        self._output[-1][field][0]["text"] += text
        yield self._part_event(f"{text_event}.delta", delta=text, logprobs=[])

    def _end(self, **fields: object) -> Iterator[str]:
        """End the last item and its part; the fields are those of a message."""
        if not self._output:
            return
        item = self._output[-1]
        _, field, event, text_event = _PARTS[item["type"]]
        (part,) = item[field]
        yield self._part_event(f"{text_event}.done", text=part["text"], logprobs=[])
        yield self._part_event(f"{event}.done", part=part)
        item |= fields if item["type"] == "message" else {}
        yield self._item_event("output_item.done", item=item)

    def _call(self, call: AnswerCall) -> Iterator[str]:
        """All events of a call: it comes as a whole."""
        item: Json = {"type": "function_call", "id": call.id.replace("call_", "fc_"), "call_id": call.id}
        item |= {"name": call.name, "arguments": call.arguments, "status": "completed"}
        self._output.append(item)
        yield self._item_event("output_item.added", item=item | {"arguments": "", "status": "in_progress"})
        event, said = "function_call_arguments", {"item_id": item["id"]}
        yield self._item_event(f"{event}.delta", **said, delta=call.arguments)
        yield self._item_event(f"{event}.done", **said, name=call.name, arguments=call.arguments)
        yield self._item_event("output_item.done", item=item)


def _usage(said: Said) -> Json:
    usage = said.answer.usage
    return {
        "input_tokens": usage.prompt_tokens,
        "input_tokens_details": {"cached_tokens": usage.cached_tokens},
        "output_tokens": usage.completion_tokens,
        "output_tokens_details": {"reasoning_tokens": usage.thinking_tokens},
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
    }


async def response(call: Call, body: ResponseRequest) -> Response:
    """Answer a conversation."""
    problem = "is not supported: send the whole conversation as input"
    check_field(not body.previous_response_id, "previous_response_id", problem)
    form, limit = body.text.format, {"max_output_tokens": body.max_output_tokens}
    tools = ToolUse.of(body.tools, call.engine, body.tool_choice, several=body.parallel_tool_calls)
    options = answer_options(call, body, body.reasoning.effort, **limit)

    def prepare() -> list[Request]:
        grammar = format_grammar(form.type, form.schema_, "text.format.schema")
        return [chat_request(call, input_messages(body), tools, body, options | {"grammar": grammar})]

    printed = ResponseFormat(body, call.model, options["effort"])
    await call.submit(prepare)
    return await respond(call, printed, tools, stream=body.stream)
