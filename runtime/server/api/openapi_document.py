"""What the server serves, as a table; the routes and the OpenAPI document are made of it."""

from collections.abc import Iterable
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

from ..http_errors import KINDS
from ..metrics import TEXT_TYPE
from ..request_limits import RequestLimits
from ..sse import EVENTS_TYPE
from . import schemas
from .request_body import JSON_TYPE, Schema

_BODIED = (400, 413, 415, 422)  # what any request with a body can meet
_ANSWERED = (*_BODIED, 404, 429, 500, 503)  # and one that the engine is to answer

_MEANINGS = {
    400: "The body is not JSON, or what it asks for cannot be done.",
    401: "The API key is missing or wrong.",
    403: "The Host header has a name that is not the server's.",
    404: "There is no such model or path.",
    413: "The body is too large.",
    415: "The body is not said to be JSON.",
    422: "A field is not supported, missing, or not what it must be.",
    429: "There is no place for another request; Retry-After says when to ask again.",
    500: "The server has failed at this.",
    503: "The server is ending.",
}


@dataclass(frozen=True, slots=True)
class Operation:
    """A path that is served.

    Attributes:
        method: GET or POST.
        path: as OpenAPI writes it.
        name: of what serves it, in server.py.
        summary: what it does.
        answer: what a success carries, None if it is text.
        refusals: with what statuses it may refuse, beside those of the gate.
        body: what a request carries, {} if nothing.
        streams: whether it can answer by events.
        guarded: whether it needs a key where there are keys.
    """

    method: str
    path: str
    name: str
    summary: str
    answer: Schema | None
    refusals: tuple[int, ...] = ()
    body: Schema | None = None
    streams: bool = False
    guarded: bool = True

    @property
    def route(self) -> str:
        """The path as Starlette writes it: names of models may have slashes."""
        return self.path.replace("{model}", "{model:path}")


def operations(bounds: RequestLimits) -> tuple[Operation, ...]:
    """All that is served."""
    chat, completion, question = schemas.chat(bounds), schemas.completion(bounds), schemas.question(bounds)
    return (
        Operation(
            "POST",
            "/v1/chat/completions",
            "chat",
            "Answer a conversation.",
            schemas.CHAT_COMPLETION,
            _ANSWERED,
            chat,
            streams=True,
        ),
        Operation(
            "POST",
            "/v1/completions",
            "completion",
            "Go on with a text.",
            schemas.COMPLETION,
            _ANSWERED,
            completion,
            streams=True,
        ),
        Operation(
            "POST",
            "/v1/answer",
            "answer",
            "Answer a question, with its value and its equations checked.",
            schemas.ANSWER,
            _ANSWERED,
            question,
            streams=True,
        ),
        Operation(
            "POST",
            "/v1/check",
            "check",
            "Check a claim of arithmetic, with no model.",
            schemas.CHECKED,
            _BODIED,
            schemas.CLAIM,
        ),
        Operation("GET", "/v1/models", "models", "List the models.", schemas.MODELS),
        Operation("GET", "/v1/models/{model}", "model", "Tell of one.", schemas.MODEL, (404,)),
        Operation(
            "GET",
            "/health",
            "health",
            "Whether the server is of use at all.",
            schemas.STATE,
            (503,),
            guarded=False,
        ),
        Operation("GET", "/ready", "ready", "Whether it takes work.", schemas.STATE, (503,), guarded=False),
        Operation("GET", "/metrics", "metrics", "Counters for Prometheus.", None),
        Operation("GET", "/openapi.json", "openapi", "This document.", {"type": "object"}, guarded=False),
    )


def document(operations: Iterable[Operation]) -> dict[str, Any]:
    """The OpenAPI document of some operations."""
    return {
        "openapi": "3.1.0",
        "info": {"title": "Thirteen", "version": version("thirteen")},
        "paths": {of.path: {of.method.lower(): _described(of)} for of in operations},
        "components": {
            "schemas": {"Error": schemas.ERROR},
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        },
    }


def _described(operation: Operation) -> dict[str, Any]:
    gate = (403, 401) if operation.guarded else (403,)
    told: dict[str, Any] = {
        "operationId": operation.name,
        "summary": operation.summary,
        "responses": {
            "200": {"description": "Done.", "content": _content(operation)},
            **{str(status): _refusal(status, operation) for status in sorted({*gate, *operation.refusals})},
        },
    }
    if operation.guarded:
        told["security"] = [{"key": []}, {}]  # a server without keys lets in everyone
    if operation.body is not None:
        told["requestBody"] = {"required": True, "content": {JSON_TYPE: {"schema": operation.body}}}
    if "{model}" in operation.path:
        told["parameters"] = [{"name": "model", "in": "path", "required": True, "schema": {"type": "string"}}]
    return told


def _content(operation: Operation) -> dict[str, Any]:
    if operation.answer is None:
        return {TEXT_TYPE: {"schema": {"type": "string"}}}
    events = {EVENTS_TYPE: {"schema": schemas.EVENT}} if operation.streams else {}
    return {JSON_TYPE: {"schema": operation.answer}, **events}


def _refusal(status: int, operation: Operation) -> dict[str, Any]:
    assert status in KINDS
    schema: Schema = {"$ref": "#/components/schemas/Error"}
    if operation.answer is schemas.STATE and status == 503:
        schema = {"anyOf": [schemas.STATE, schema]}
    return {"description": _MEANINGS[status], "content": {JSON_TYPE: {"schema": schema}}}
