"""Bodies of HTTP requests, each read as all of the API's requests and made into requests of the engine."""

from collections.abc import Coroutine
from functools import partial
from json import loads
from typing import Any

from starlette.requests import Request
from thirteen.errors import ThirteenError
from thirteen.runtime.server.api.openai_api import Source, chat_messages, chat_requests, completion_requests
from thirteen.runtime.server.api.request_body import read_body
from thirteen.runtime.server.api.request_models import (
    AnswerRequest,
    ChatRequest,
    CheckRequest,
    CompletionRequest,
    RequestBody,
    limited,
)
from thirteen.runtime.server.api.tool_calls import ToolUse, check_tools
from thirteen.runtime.server.http_errors import MESSAGE_CHARS_MAX, to_http_error
from thirteen.runtime.server.request_limits import RequestLimits

from ..json_mutator import mutate_json
from ..target import Target

_LIMITS = RequestLimits(max_tokens=256)
_MODELS = tuple(
    limited(model, _LIMITS) for model in (ChatRequest, CompletionRequest, AnswerRequest, CheckRequest)
)
_SOURCE = Source("base", "")
_PROMPT = (1, 2, 3)
_WORDS = (
    *sorted({field.alias or name for model in _MODELS for name, field in model.model_fields.items()}),
    *(
        "role",
        "content",
        "user",
        "assistant",
        "system",
        "text",
        "type",
        "json_schema",
        "json_object",
        "schema",
    ),
    *(
        "name",
        "strict",
        "include_usage",
        "integer",
        "string",
        "properties",
        "required",
        "enum",
        "anyOf",
        "$ref",
    ),
)


def check(data: bytes) -> bool:
    accepted = [_accepts(data, model) for model in _MODELS]
    return any(accepted)


def _accepts(data: bytes, model: type[RequestBody]) -> bool:
    try:
        body = _finish(read_body(_request(data), model, _LIMITS.body_bytes))
        if isinstance(body, ChatRequest):
            assert len(chat_messages(body)) == len(body.messages)
            check_tools(body, takes_tools=True)
            assert len(chat_requests(body, _PROMPT, _SOURCE, ToolUse.of(body, ""))) == body.n
        if isinstance(body, CompletionRequest):
            prompts = [_PROMPT] * len(body.prompts)
            assert len(completion_requests(body, prompts, _SOURCE)) == body.n * len(prompts)
    except ThirteenError as error:
        return _refused(error)
    return True


def _refused(error: ThirteenError) -> bool:
    """Check the response; returns False."""
    answer = to_http_error(error)
    assert answer.status in (400, 413, 415, 422), answer
    assert answer.message and "\n" not in answer.message and len(answer.message) <= MESSAGE_CHARS_MAX + 1
    assert loads(bytes(answer.response("/v1/").body))["error"]["message"] == answer.message
    return False


def _request(data: bytes) -> Request:
    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": data, "more_body": False}

    headers = [(b"content-type", b"application/json")]
    return Request({"type": "http", "method": "POST", "headers": headers}, receive)


def _finish(coroutine: Coroutine[Any, Any, RequestBody]) -> RequestBody:
    """Run a coroutine that never waits."""
    try:
        coroutine.send(None)
    except StopIteration as finished:
        body: RequestBody = finished.value
        return body
    raise AssertionError("it waits")


TARGET = Target(check, words=_WORDS, mutate=partial(mutate_json, words=_WORDS))
