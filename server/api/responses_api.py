"""OpenAI's Responses API: engine requests from request bodies, responses and events from answers."""

from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import count
from time import time
from typing import Any
from uuid import uuid4

from ...runtime.answer import Answer, Piece
from ...runtime.effort import Effort
from ...runtime.grammar.grammar import Grammar
from ...runtime.prompt.prompt_encoder import Message
from ...runtime.request import Request, StopReason
from ..http_errors import field_error, to_http_error
from .openai_api import format_grammar
from .request_models import text_of
from .responses_models import FunctionChoice, InputCall, InputCallResult, InputReasoning, ResponseRequest
from .tool_calls import AnswerCall, ToolUse, parse_call

Json = dict[str, Any]

LAST_EVENTS = ("response.completed", "response.incomplete")


def input_messages(body: ResponseRequest) -> list[Message]:
    """Messages of the input; the role "developer" is "system" in chat templates.

    Calls belong to the message of the model before them.

    Raises:
        HttpError: 400 the arguments of a call are no JSON object.
    """
    messages: list[Message] = []
    for index, item in enumerate(body.input):
        match item:
            case InputCall():
                last = (
                    messages.pop()
                    if messages and messages[-1].role == "assistant"
                    else Message("assistant", "")
                )
                call = parse_call(item.call_id, item.name, item.arguments, f"input[{index}].arguments")
                messages.append(replace(last, tool_calls=(*last.tool_calls, call)))
            case InputCallResult():
                messages.append(Message("tool", text_of(item.output), tool_call_id=item.call_id))
            case InputReasoning():
                pass
            case _:
                role = "system" if item.role == "developer" else item.role
                messages.append(Message(role, text_of(item.content)))
    return messages


def with_instructions(body: ResponseRequest, messages: Iterable[Message]) -> list[Message]:
    """A conversation behind the instructions, if there are any."""
    return [*([Message("system", body.instructions)] if body.instructions else []), *messages]


def response_request(body: ResponseRequest, asked: Request, tokens_max: int, tools: ToolUse) -> Request:
    """Engine request of a request for a response; `asked` has its conversation.

    Raises:
        RequestError: a field is invalid for the engine.
        HttpError: 400 fields contradict each other.
    """
    return replace(
        asked,
        max_tokens=min(body.max_output_tokens or asked.max_tokens, tokens_max),
        sampling=body.new_sampling(),
        calculator=body.calculator,
        grammar=tools.grammar(_text_grammar(body, tools)),
    )


def _text_grammar(body: ResponseRequest, tools: ToolUse) -> Grammar | None:
    text_format = body.text.format
    if text_format.type == "json_schema" and text_format.name is None:
        raise field_error("text.format.name", "is required for the type json_schema")
    param, strict = "text.format.schema", text_format.strict
    return format_grammar(text_format.type, text_format.schema_, param, tools, strict=strict)


@dataclass(frozen=True)
class ResponsesFormatter:
    """Formats a response, whole or as events.

    Attributes:
        body: the request.
        model: model name.
        tools: what the answer may call.
        effort: how much is computed for it.
        id: id of the response.
        item_id: id of its message.
        created_at: Unix time of the response.
    """

    body: ResponseRequest
    model: str
    tools: ToolUse
    effort: Effort
    id: str = field(default_factory=lambda: f"resp_{uuid4().hex}")
    item_id: str = field(default_factory=lambda: f"msg_{uuid4().hex}")
    created_at: int = field(default_factory=lambda: int(time()))

    def response(self, answer: Answer) -> Json:
        """The response with an answer."""
        text, calls = self.tools.parser().take(Piece(answer.text, answer=answer))
        votes = answer.tally.agreement if answer.tally else ""
        return self._whole(answer, text, calls, self._reasoning(votes, answer.thinking))

    def _reasoning(self, votes: str = "", thought: str = "") -> "_Reasoning":
        return _Reasoning(self.item_id.replace("msg_", "rs_"), [votes, thought])

    def _whole(self, answer: Answer, text: str, calls: Sequence[AnswerCall], reasoning: "_Reasoning") -> Json:
        status, details = "completed", None
        if answer.stop_reason is StopReason.LENGTH:
            status, details = "incomplete", {"reason": "max_output_tokens"}
        output = [_call_item(call) for call in calls]
        if text or not calls:
            output.insert(0, self._message(status, [_text_part(text)]))
        if reasoning.begun:
            output.insert(0, reasoning.item)
        return self._response(status, incomplete_details=details, output=output, usage=_usage_json(answer))

    async def events(self, pieces: AsyncIterator[Piece]) -> AsyncIterator[Json]:
        """Events of a streamed response; if it fails, the last one says so."""
        numbers = count()
        try:
            async for name, fields in self._events(pieces):
                yield {"type": f"response.{name}", "sequence_number": next(numbers), **fields}
        except Exception as error:
            failure = {"code": "server_error", "message": to_http_error(error).message}
            response = self._response("failed", error=failure)
            yield {"type": "response.failed", "sequence_number": next(numbers), "response": response}

    async def _events(self, pieces: AsyncIterator[Piece]) -> AsyncIterator[tuple[str, Json]]:
        """Names of events, and their fields."""
        for name in ("created", "in_progress"):
            yield name, {"response": self._response("in_progress")}
        parser, texts, reasoning = self.tools.parser(), list[str](), self._reasoning()
        async for piece in pieces:
            for name, fields in reasoning.events(piece):
                yield name, {"output_index": 0, **fields}
            place = {"output_index": int(reasoning.begun)}
            part = {"item_id": self.item_id, **place, "content_index": 0}
            text, calls = parser.take(piece)
            if not texts and (text or (piece.answer and not calls)):
                yield "output_item.added", {**place, "item": self._message("in_progress", [])}
                yield "content_part.added", {**part, "part": _text_part("")}
            if text:
                texts.append(text)
                yield "output_text.delta", {**part, "delta": text, "logprobs": []}
            if piece.answer:
                response = self._whole(piece.answer, "".join(texts), calls, reasoning)
                for index, item in enumerate(response["output"]):
                    for event in _ENDS[item["type"]](item):
                        yield event[0], {"output_index": index, **event[1]}
                yield response["status"], {"response": response}

    def _message(self, status: str, content: Sequence[Json]) -> Json:
        return {
            "type": "message",
            "id": self.item_id,
            "status": status,
            "role": "assistant",
            "content": content,
        }

    def _response(self, status: str, **fields: object) -> Json:
        body, choice = self.body, self.body.tool_choice or FunctionChoice(type="auto")
        return {
            "id": self.id,
            "object": "response",
            "created_at": self.created_at,
            "model": self.model,
            "status": status,
            "error": None,
            "incomplete_details": None,
            "instructions": body.instructions,
            "max_output_tokens": body.max_output_tokens,
            "metadata": {},
            "output": [],
            "parallel_tool_calls": self.tools.several,
            "previous_response_id": body.previous_response_id or None,
            "reasoning": {"effort": self.effort, "summary": None},
            "store": body.store,
            "temperature": body.temperature or 0.0,
            "text": body.text.model_dump(by_alias=True, exclude_none=True),
            "tool_choice": choice.model_dump() if choice.name else choice.type,
            "tools": [tool.model_dump() for tool in body.tools],
            "top_p": body.top_p,
            "truncation": "disabled",
            "usage": None,
            **fields,
        }


# Of each part of an item of type reasoning: its field, its events and those of its text, its index, its type.
_PARTS = (
    ("summary", "reasoning_summary_part", "reasoning_summary_text", "summary_index", "summary_text"),
    ("content", "content_part", "reasoning_text", "content_index", "reasoning_text"),
)


@dataclass
class _Reasoning:
    """The item of type reasoning: lines of the votes so far as its summary, and the thought as its content.

    Attributes:
        id: id of the item.
        texts: both texts.
        ended: whether its last events were given.
    """

    id: str
    texts: list[str]
    ended: bool = False

    @property
    def begun(self) -> bool:
        """Whether there is one."""
        return any(self.texts)

    @property
    def item(self) -> Json:
        """The item so far."""
        found = {part[0]: [{"type": part[-1], "text": text}] for part, text in self._parts if text}
        return {"type": "reasoning", "id": self.id, "summary": [], **found}

    @property
    def _parts(self) -> Iterator[tuple[tuple[str, str, str, str, str], str]]:
        return zip(_PARTS, self.texts, strict=True)

    def events(self, piece: Piece) -> Iterator[tuple[str, Json]]:
        """Events of the next piece, without the place; before the first text of the answer, the last ones."""
        votes = piece.reasoning.removesuffix(piece.thinking)
        for at, text in enumerate((votes, piece.thinking)):
            _, part, delta, index, kind = _PARTS[at]
            place = {"item_id": self.id, index: 0}
            if text and not self.begun:
                yield "output_item.added", {"item": self.item}
            if text and not self.texts[at]:
                yield f"{part}.added", {**place, "part": {"type": kind, "text": ""}}
            if text:
                self.texts[at] += text
                yield f"{delta}.delta", {**place, "delta": text}
        if self.ended or not self.begun or not (piece.text or piece.answer):
            return
        self.ended = True
        for (_, part, delta, index, kind), text in self._parts:
            if text:
                place = {"item_id": self.id, index: 0}
                yield f"{delta}.done", {**place, "text": text}
                yield f"{part}.done", {**place, "part": {"type": kind, "text": text}}
        yield "output_item.done", {"item": self.item}


def output_message(response: Json) -> Message:
    """The output of a response as a message of the next prompt."""
    items = response["output"]
    texts = [part["text"] for item in items if item["type"] == "message" for part in item["content"]]
    calls = (
        parse_call(item["call_id"], item["name"], item["arguments"], "arguments")
        for item in items
        if item["type"] == "function_call"
    )
    return Message("assistant", "".join(texts), tuple(calls))


def _call_item(call: AnswerCall) -> Json:
    return {
        "type": "function_call",
        "id": call.id.replace("call_", "fc_"),
        "call_id": call.id,
        "name": call.name,
        "arguments": call.arguments,
        "status": "completed",
    }


def _call_events(item: Json) -> Iterator[tuple[str, Json]]:
    """All events of a call, without its place: it comes as a whole."""
    begun = {**item, "arguments": "", "status": "in_progress"}
    part, arguments = {"item_id": item["id"]}, item["arguments"]
    yield "output_item.added", {"item": begun}
    yield "function_call_arguments.delta", {**part, "delta": arguments}
    yield "function_call_arguments.done", {**part, "name": item["name"], "arguments": arguments}
    yield "output_item.done", {"item": item}


def _text_ends(message: Json) -> Iterator[tuple[str, Json]]:
    """The last events of a message, without its place."""
    (content,) = message["content"]
    part = {"item_id": message["id"], "content_index": 0}
    yield "output_text.done", {**part, "text": content["text"], "logprobs": []}
    yield "content_part.done", {**part, "part": content}
    yield "output_item.done", {"item": message}


_ENDS: dict[str, Callable[[Json], Iterable[tuple[str, Json]]]] = {
    "function_call": _call_events,
    "message": _text_ends,
    "reasoning": lambda _: (),  # has ended before the text
}


def _text_part(text: str) -> Json:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}


def _usage_json(answer: Answer) -> Json:
    usage = answer.usage
    return {
        "input_tokens": usage.prompt_tokens,
        "input_tokens_details": {"cached_tokens": usage.cached_tokens},
        "output_tokens": usage.completion_tokens,
        "output_tokens_details": {"reasoning_tokens": usage.thinking_tokens},
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
    }
