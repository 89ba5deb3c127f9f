"""Tables of the operations of each API, from which the routes and the OpenAPI document are built."""

from dataclasses import dataclass
from functools import partial

from pydantic import BaseModel

from ..streams import EVENT_STREAM_TYPE, JSON_LINES_TYPE
from .ollama_models import OllamaChatRequest, OllamaError, OllamaGenerateRequest, ShowRequest
from .request_models import AnswerRequest, ChatRequest, CheckRequest, CompletionRequest, RequestBody
from .response_models import AnswerResponse, CheckResult, Error, JsonObject, Status
from .responses_models import ResponseRequest

BODY_ERRORS = (400, 413, 415, 422)
ENGINE_ERRORS = (*BODY_ERRORS, 404, 429, 500, 503)


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
