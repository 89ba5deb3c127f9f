"""Tables of the operations of each API, from which the routes are built, and the OpenAPI document of them."""

import re
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from importlib.metadata import version
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import JsonSchemaMode, models_json_schema

from ..access.request_limits import RequestLimits
from ..metrics import PROMETHEUS_TYPE
from ..streams import EVENT_STREAM_TYPE, JSON_LINES_TYPE
from .ollama_models import (
    OllamaChatRequest,
    OllamaEmbeddingRequest,
    OllamaEmbedRequest,
    OllamaError,
    OllamaGenerateRequest,
    ShowRequest,
)
from .request_body import JSON_TYPE
from .request_models import (
    AnswerRequest,
    ChatRequest,
    CheckRequest,
    CompletionRequest,
    EmbeddingRequest,
    RequestBody,
    limited,
)
from .response_models import AnswerResponse, CheckResult, Error, JsonObject, Status, StreamEvent
from .responses_models import ResponseRequest

BODY_ERRORS = (400, 413, 415, 422)
ENGINE_ERRORS = (*BODY_ERRORS, 404, 429, 500, 503)
_REFERENCE = "#/components/schemas/{model}"


@dataclass(frozen=True, slots=True)
class Operation:
    """An operation of an API.

    Attributes:
        method: GET, POST or DELETE.
        path: path in OpenAPI syntax.
        name: operationId, and the name of the method of the API's endpoints.
        summary: one sentence for the document.
        errors: error statuses, apart from those of the access middleware.
        body: model of the request body, if any.
        response: model of the successful response; None is Prometheus text.
        stream_type: media type of a streamed response, if it can be streamed.
        error: model of an error.
        requires_key: whether it needs an API key if the server has keys.
    """

    method: str
    path: str
    name: str
    summary: str
    errors: tuple[int, ...] = ()
    body: type[RequestBody] | None = None
    response: type[BaseModel] | None = JsonObject
    stream_type: str | None = None
    error: type[BaseModel] = Error
    requires_key: bool = True

    @property
    def route(self) -> str:
        """Path in Starlette syntax; model names may contain slashes."""
        return self.path.replace("{model}", "{model:path}")


_get = partial(Operation, "GET")
_post = partial(Operation, "POST")
_public = partial(_get, requires_key=False)
_generate = partial(_post, errors=ENGINE_ERRORS, stream_type=EVENT_STREAM_TYPE)
_ollama_get = partial(_get, error=OllamaError)
_ollama_post = partial(_post, error=OllamaError)
_ollama_generate = partial(_ollama_post, errors=ENGINE_ERRORS, stream_type=JSON_LINES_TYPE)
_RESPONSE = "/v1/responses/{response_id}"

OPENAI_OPERATIONS = (
    _generate("/v1/chat/completions", "chat", "Answer a conversation.", body=ChatRequest),
    _generate("/v1/completions", "completion", "Complete a text.", body=CompletionRequest),
    _post("/v1/embeddings", "embeddings", "Embed texts.", ENGINE_ERRORS, EmbeddingRequest),
    _get("/v1/models", "models", "List the models."),
    _get("/v1/models/{model}", "model", "Describe a model.", (404,)),
)
RESPONSES_OPERATIONS = (
    _generate(
        "/v1/responses", "create_response", "Answer a conversation, and store it.", body=ResponseRequest
    ),
    _get(_RESPONSE, "retrieve_response", "Return a stored response.", (404, 422)),
    Operation("DELETE", _RESPONSE, "delete_response", "Delete a stored response.", (404,)),
)
ANSWER_OPERATIONS = (
    _generate(
        "/v1/answer",
        "answer",
        "Answer a question, with its final value and its equations checked.",
        body=AnswerRequest,
        response=AnswerResponse,
    ),
    _post(
        "/v1/check",
        "check",
        "Check an arithmetic claim, without a model.",
        BODY_ERRORS,
        CheckRequest,
        CheckResult,
    ),
)
OLLAMA_OPERATIONS = (
    _ollama_generate("/api/chat", "ollama_chat", "Answer a conversation.", body=OllamaChatRequest),
    _ollama_generate("/api/generate", "ollama_generate", "Answer a question.", body=OllamaGenerateRequest),
    _ollama_post("/api/embed", "ollama_embed", "Embed texts.", ENGINE_ERRORS, OllamaEmbedRequest),
    _ollama_post(
        "/api/embeddings", "ollama_embedding", "Embed a text.", ENGINE_ERRORS, OllamaEmbeddingRequest
    ),
    _ollama_get("/api/tags", "ollama_tags", "List the models."),
    _ollama_post("/api/show", "ollama_show", "Describe a model.", (*BODY_ERRORS, 404), ShowRequest),
    _ollama_get("/api/ps", "ollama_ps", "List the models in memory."),
    _ollama_get("/api/version", "ollama_version", "Version of this server."),
)
STATUS_OPERATIONS = (
    _public("/health", "health", "Check liveness.", (503,), response=Status),
    _public("/ready", "ready", "Check readiness.", (503,), response=Status),
    _get("/metrics", "metrics", "Prometheus metrics.", response=None),
    _public("/openapi.json", "openapi", "This document."),
)
OPERATIONS = (
    *OPENAI_OPERATIONS,
    *RESPONSES_OPERATIONS,
    *ANSWER_OPERATIONS,
    *OLLAMA_OPERATIONS,
    *STATUS_OPERATIONS,
)


def openapi_document(limits: RequestLimits) -> dict[str, Any]:
    """OpenAPI 3.1 document of all operations; the limits are part of the request bodies."""
    models: dict[type[BaseModel], JsonSchemaMode] = {}
    paths: dict[str, dict[str, Any]] = {}
    for operation in OPERATIONS:
        models[operation.error] = "serialization"
        if operation.response:
            models[operation.response] = "serialization"
        if operation.stream_type:
            models[StreamEvent] = "serialization"
        if operation.body:
            models[limited(operation.body, limits)] = "validation"
        paths.setdefault(operation.path, {})[operation.method.lower()] = _operation_object(operation)
    _, definitions = models_json_schema([*models.items()], ref_template=_REFERENCE)
    return {
        "openapi": "3.1.0",
        "info": {"title": "Thirteen", "version": version("thirteen")},
        "paths": paths,
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
    if names := re.findall(r"{(\w+)}", operation.path):
        result["parameters"] = [
            {"name": name, "in": "path", "required": True, "schema": {"type": "string"}} for name in names
        ]
    return result


def _success_content(operation: Operation) -> dict[str, Any]:
    if operation.response is None:
        return {PROMETHEUS_TYPE: {"schema": {"type": "string"}}}
    content = {JSON_TYPE: {"schema": _reference(operation.response)}}
    if operation.stream_type:
        part = StreamEvent if operation.stream_type == EVENT_STREAM_TYPE else operation.response
        content[operation.stream_type] = {"schema": _reference(part)}
    return content


def _error_response(status: int, operation: Operation) -> dict[str, Any]:
    schema: dict[str, Any] = _reference(operation.error)
    if operation.response is Status and status == 503:
        schema = {"anyOf": [_reference(Status), schema]}
    return {"description": HTTPStatus(status).phrase, "content": {JSON_TYPE: {"schema": schema}}}
