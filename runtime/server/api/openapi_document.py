"""Table of API operations, from which the routes and the OpenAPI document are built."""

from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import JsonSchemaMode, models_json_schema

from ..http_errors import ERROR_TYPES
from ..metrics import PROMETHEUS_TYPE
from ..request_limits import RequestLimits
from ..sse import EVENT_STREAM_TYPE
from . import request_models, response_models
from .request_body import JSON_TYPE
from .request_models import RequestBody, limited
from .response_models import Error, Status, StreamEvent

_REFERENCE = "#/components/schemas/{model}"

_BODY_ERRORS = (400, 413, 415, 422)
_ENGINE_ERRORS = (*_BODY_ERRORS, 404, 429, 500, 503)

_ERROR_DESCRIPTIONS = {
    400: "The body is not JSON, or the request cannot be carried out.",
    401: "The API key is missing or wrong.",
    403: "The Host header does not name this server.",
    404: "There is no such model or path.",
    413: "The body is too large.",
    415: "The content type is not JSON.",
    422: "A field is unsupported, missing or invalid.",
    429: "The queue is full; Retry-After gives the seconds to wait.",
    500: "Internal server error.",
    503: "The server is shutting down.",
}


@dataclass(frozen=True, slots=True)
class Operation:
    """An operation of the API.

    Attributes:
        method: GET or POST.
        path: path in OpenAPI syntax.
        name: operationId, and the name of the endpoint method of app.Server.
        summary: one sentence for the document.
        response: model of the successful response; None is Prometheus text.
        errors: error statuses, apart from those of the access middleware.
        body: model of the request body, if any.
        streams: whether the response can be an event stream.
        requires_key: whether it needs an API key if the server has keys.
    """

    method: str
    path: str
    name: str
    summary: str
    response: type[BaseModel] | None
    errors: tuple[int, ...] = ()
    body: type[RequestBody] | None = None
    streams: bool = False
    requires_key: bool = True

    @property
    def route(self) -> str:
        """Path in Starlette syntax; model names may contain slashes."""
        return self.path.replace("{model}", "{model:path}")


_get = partial(Operation, "GET")
_post = partial(Operation, "POST")
_generate = partial(_post, errors=_ENGINE_ERRORS, streams=True)


OPERATIONS = (
    _generate(
        "/v1/chat/completions",
        "chat",
        "Answer a conversation.",
        response_models.ChatCompletion,
        body=request_models.ChatRequest,
    ),
    _generate(
        "/v1/completions",
        "completion",
        "Complete a text.",
        response_models.Completion,
        body=request_models.CompletionRequest,
    ),
    _generate(
        "/v1/answer",
        "answer",
        "Answer a question, with its final value and its equations checked.",
        response_models.AnswerResponse,
        body=request_models.AnswerRequest,
    ),
    _post(
        "/v1/check",
        "check",
        "Check an arithmetic claim, without a model.",
        response_models.CheckResult,
        _BODY_ERRORS,
        request_models.CheckRequest,
    ),
    _get("/v1/models", "models", "List the models.", response_models.ModelList),
    _get("/v1/models/{model}", "model", "Describe a model.", response_models.Model, (404,)),
    _get("/health", "health", "Check liveness.", response_models.Status, (503,), requires_key=False),
    _get("/ready", "ready", "Check readiness.", response_models.Status, (503,), requires_key=False),
    _get("/metrics", "metrics", "Prometheus metrics.", None),
    _get("/openapi.json", "openapi", "This document.", response_models.JsonObject, requires_key=False),
)


def openapi_document(limits: RequestLimits) -> dict[str, Any]:
    """OpenAPI 3.1 document of all operations; the limits are part of the request bodies."""
    models: dict[type[BaseModel], JsonSchemaMode] = {StreamEvent: "serialization", Error: "serialization"}
    for operation in OPERATIONS:
        if operation.response:
            models[operation.response] = "serialization"
        if operation.body:
            models[limited(operation.body, limits)] = "validation"
    _, definitions = models_json_schema([*models.items()], ref_template=_REFERENCE)
    return {
        "openapi": "3.1.0",
        "info": {"title": "Thirteen", "version": version("thirteen")},
        "paths": {
            operation.path: {operation.method.lower(): _operation_object(operation)}
            for operation in OPERATIONS
        },
        "components": {
            "schemas": definitions["$defs"],
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        },
    }


def _reference(model: type[BaseModel]) -> dict[str, str]:
    return {"$ref": _REFERENCE.format(model=model.__name__)}


def _operation_object(operation: Operation) -> dict[str, Any]:
    access_errors = (403, 401) if operation.requires_key else (403,)
    statuses = sorted({*access_errors, *operation.errors})
    result: dict[str, Any] = {
        "operationId": operation.name,
        "summary": operation.summary,
        "responses": {
            "200": {"description": "Success.", "content": _success_content(operation)},
            **{str(status): _error_response(status, operation) for status in statuses},
        },
    }
    if operation.requires_key:
        result["security"] = [{"key": []}, {}]  # {}: a server without keys needs none
    if operation.body is not None:
        result["requestBody"] = {
            "required": True,
            "content": {JSON_TYPE: {"schema": _reference(operation.body)}},
        }
    if "{model}" in operation.path:
        result["parameters"] = [
            {"name": "model", "in": "path", "required": True, "schema": {"type": "string"}}
        ]
    return result


def _success_content(operation: Operation) -> dict[str, Any]:
    if operation.response is None:
        return {PROMETHEUS_TYPE: {"schema": {"type": "string"}}}
    events = {EVENT_STREAM_TYPE: {"schema": _reference(StreamEvent)}} if operation.streams else {}
    return {JSON_TYPE: {"schema": _reference(operation.response)}, **events}


def _error_response(status: int, operation: Operation) -> dict[str, Any]:
    assert status in ERROR_TYPES
    schema: dict[str, Any] = _reference(Error)
    if operation.response is Status and status == 503:
        schema = {"anyOf": [_reference(Status), schema]}
    return {"description": _ERROR_DESCRIPTIONS[status], "content": {JSON_TYPE: {"schema": schema}}}
