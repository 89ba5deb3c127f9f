"""OpenAI's Responses API: engine requests from request bodies, responses and events from answers."""

from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import count
from time import time
from typing import Any
from uuid import uuid4

from ...runtime.answer import Answer
from ...runtime.engine.handle import Piece
from ...runtime.grammar.grammar import Grammar
from ...runtime.prompt.prompt_encoder import Message
from ...runtime.request import Request, StopReason
from ..http_errors import HttpError, to_http_error
from .openai_api import Source, format_grammar
from .request_models import MAX_TOKENS_DEFAULT, text_of
from .responses_models import ResponseRequest

Json = dict[str, Any]

LAST_EVENTS = ("response.completed", "response.incomplete")


def input_messages(body: ResponseRequest) -> list[Message]:
    """Messages of the input; the role "developer" is "system" in chat templates."""
    return [
        Message("system" if message.role == "developer" else message.role, text_of(message.content))
        for message in body.input
    ]


def with_instructions(body: ResponseRequest, messages: Iterable[Message]) -> list[Message]:
    """A conversation behind the instructions, if there are any."""
    return [*([Message("system", body.instructions)] if body.instructions else []), *messages]


def response_request(
    body: ResponseRequest, prompt: tuple[int, ...], source: Source, tokens_max: int
) -> Request:
    """Engine request of a request for a response.

    Args:
        body: the request.
        prompt: its conversation.
        source: what it does not say itself.
        tokens_max: limit of an answer's tokens.

    Raises:
        RequestError: a field is invalid for the engine.
        HttpError: 400 fields contradict each other.
    """
    return Request(
        prompt,
        min(body.max_output_tokens or MAX_TOKENS_DEFAULT, tokens_max),
        body.new_sampling(),
        calculator=body.calculator,
        grammar=_text_grammar(body),
        adapter=source.adapter,
        namespace=source.namespace,
    )


def _text_grammar(body: ResponseRequest) -> Grammar | None:
    text_format = body.text.format
    if text_format.type == "json_schema" and text_format.name is None:
        raise HttpError(
            400, "text.format.name is required for the type json_schema", param="text.format.name"
        )
    return format_grammar(text_format.type, text_format.schema_, "text.format.schema")


@dataclass(frozen=True)
class ResponsesFormatter:
    """Formats a response, whole or as events.

    Attributes:
        body: the request.
        model: model name.
        id: id of the response.
        item_id: id of its message.
        created_at: Unix time of the response.
    """

    body: ResponseRequest
    model: str
    id: str = field(default_factory=lambda: f"resp_{uuid4().hex}")
    item_id: str = field(default_factory=lambda: f"msg_{uuid4().hex}")
    created_at: int = field(default_factory=lambda: int(time()))

    def response(self, answer: Answer) -> Json:
        """The response with an answer."""
        status, details = "completed", None
        if answer.stop_reason is StopReason.LENGTH:
            status, details = "incomplete", {"reason": "max_output_tokens"}
        message = self._message(status, [_text_part(answer.text)])
        return self._response(status, incomplete_details=details, output=[message], usage=_usage_json(answer))

    async def events(self, pieces: AsyncIterator[Piece]) -> AsyncIterator[Json]:
        """Events of a streamed response; if it fails, the last one says so.

        Args:
            pieces: the answer as it is generated.
        """
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
        place = {"output_index": 0}
        part = {"item_id": self.item_id, **place, "content_index": 0}
        yield "output_item.added", {**place, "item": self._message("in_progress", [])}
        yield "content_part.added", {**part, "part": _text_part("")}
        async for piece in pieces:
            if piece.text:
                yield "output_text.delta", {**part, "delta": piece.text, "logprobs": []}
            if piece.answer:
                response = self.response(piece.answer)
                (message,) = response["output"]
                (content,) = message["content"]
                yield "output_text.done", {**part, "text": content["text"], "logprobs": []}
                yield "content_part.done", {**part, "part": content}
                yield "output_item.done", {**place, "item": message}
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
        body = self.body
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
            "parallel_tool_calls": False,
            "previous_response_id": body.previous_response_id,
            "store": body.store,
            "temperature": body.temperature or 0.0,
            "text": body.text.model_dump(by_alias=True, exclude_none=True),
            "tool_choice": "none",
            "tools": [],
            "top_p": body.top_p,
            "truncation": "disabled",
            "usage": None,
            **fields,
        }


def _text_part(text: str) -> Json:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}


def _usage_json(answer: Answer) -> Json:
    usage = answer.usage
    return {
        "input_tokens": usage.prompt_tokens,
        "input_tokens_details": {"cached_tokens": usage.cached_tokens},
        "output_tokens": usage.completion_tokens,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
    }
