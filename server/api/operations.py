"""Tables of the operations of each API, from which the routes and the OpenAPI document are built."""

from dataclasses import dataclass
from functools import partial

from pydantic import BaseModel

from ..streams import EVENT_STREAM_TYPE, JSON_LINES_TYPE
from . import ollama_models, request_models, response_models, responses_models
from .request_models import RequestBody

BODY_ERRORS = (400, 413, 415, 422)
ENGINE_ERRORS = (*BODY_ERRORS, 404, 429, 500, 503)


@dataclass(frozen=True, slots=True)
class Stream:
    """How a response is streamed: the media type, and the model of an event or a line."""

    media_type: str
    model: type[BaseModel]


EVENTS = Stream(EVENT_STREAM_TYPE, response_models.StreamEvent)


@dataclass(frozen=True, slots=True)
class Operation:
    """An operation of an API.

    Attributes:
        method: GET, POST or DELETE.
        path: path in OpenAPI syntax.
        name: operationId, and the name of the method of the API's endpoints.
        summary: one sentence for the document.
        response: model of the successful response; None is Prometheus text.
        errors: error statuses, apart from those of the access middleware.
        body: model of the request body, if any.
        stream: how the response is streamed, if it can be.
        error: model of an error.
        requires_key: whether it needs an API key if the server has keys.
    """

    method: str
    path: str
    name: str
    summary: str
    response: type[BaseModel] | None
    errors: tuple[int, ...] = ()
    body: type[RequestBody] | None = None
    stream: Stream | None = None
    error: type[BaseModel] = response_models.Error
    requires_key: bool = True

    @property
    def route(self) -> str:
        """Path in Starlette syntax; model names may contain slashes."""
        return self.path.replace("{model}", "{model:path}")


_get = partial(Operation, "GET")
_post = partial(Operation, "POST")
_generate = partial(_post, errors=ENGINE_ERRORS, stream=EVENTS)

OPENAI_OPERATIONS = (
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
    _get("/v1/models", "models", "List the models.", response_models.ModelList),
    _get("/v1/models/{model}", "model", "Describe a model.", response_models.Model, (404,)),
)

RESPONSES_OPERATIONS = (
    _generate(
        "/v1/responses",
        "create_response",
        "Answer a conversation, and keep it for the next turn.",
        responses_models.ResponseObject,
        body=responses_models.ResponseRequest,
    ),
    _get(
        "/v1/responses/{response_id}",
        "retrieve_response",
        "Return a stored response.",
        responses_models.ResponseObject,
        (404, 422),
    ),
    Operation(
        "DELETE",
        "/v1/responses/{response_id}",
        "delete_response",
        "Delete a stored response.",
        responses_models.DeletedResponse,
        (404,),
    ),
)

ANSWER_OPERATIONS = (
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
        BODY_ERRORS,
        request_models.CheckRequest,
    ),
)

_ollama_get = partial(_get, error=ollama_models.OllamaError)
_ollama_generate = partial(_post, errors=ENGINE_ERRORS, error=ollama_models.OllamaError)
OLLAMA_OPERATIONS = (
    _ollama_generate(
        "/api/chat",
        "ollama_chat",
        "Answer a conversation.",
        ollama_models.ChatResponse,
        body=ollama_models.OllamaChatRequest,
        stream=Stream(JSON_LINES_TYPE, ollama_models.ChatResponse),
    ),
    _ollama_generate(
        "/api/generate",
        "ollama_generate",
        "Answer a question.",
        ollama_models.GenerateResponse,
        body=ollama_models.OllamaGenerateRequest,
        stream=Stream(JSON_LINES_TYPE, ollama_models.GenerateResponse),
    ),
    _ollama_get("/api/tags", "ollama_tags", "List the models.", ollama_models.TagsResponse),
    _post(
        "/api/show",
        "ollama_show",
        "Describe a model.",
        ollama_models.ShowResponse,
        (*BODY_ERRORS, 404),
        ollama_models.ShowRequest,
        error=ollama_models.OllamaError,
    ),
    _ollama_get("/api/ps", "ollama_ps", "List the loaded models: all of them.", ollama_models.PsResponse),
    _ollama_get("/api/version", "ollama_version", "Version of this server.", ollama_models.VersionResponse),
)

STATUS_OPERATIONS = (
    _get("/health", "health", "Check liveness.", response_models.Status, (503,), requires_key=False),
    _get("/ready", "ready", "Check readiness.", response_models.Status, (503,), requires_key=False),
    _get("/metrics", "metrics", "Prometheus metrics.", None),
    _get("/openapi.json", "openapi", "This document.", response_models.JsonObject, requires_key=False),
)

OPERATIONS = (
    *OPENAI_OPERATIONS,
    *RESPONSES_OPERATIONS,
    *ANSWER_OPERATIONS,
    *OLLAMA_OPERATIONS,
    *STATUS_OPERATIONS,
)
