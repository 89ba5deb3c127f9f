"""Bodies of HTTP requests, each read as all kinds of requests and made into requests of the engine."""

from collections.abc import Coroutine, Iterator
from json import loads
from types import SimpleNamespace
from typing import Any, cast

from starlette.requests import Request
from thirteen.errors import ThirteenError
from thirteen.runtime.options import Options
from thirteen.runtime.prompt.chat_template import ChatTemplate
from thirteen.runtime.prompt.prompt_encoder import PromptEncoder
from thirteen.runtime.prompt.question_prompt import PLAIN
from thirteen.server.api.answers import AnswerRequest, CheckRequest, check_claim
from thirteen.server.api.bodies import RequestBody, read_body
from thirteen.server.api.core import InternalRequest
from thirteen.server.api.ollama import OllamaChatRequest, OllamaGenerateRequest, ollama_request
from thirteen.server.api.openai import ChatRequest, CompletionRequest, chat_request
from thirteen.server.api.responses import ResponseRequest, response_request
from thirteen.server.config import RequestLimits
from thirteen.server.engine_service import Call, EngineService
from thirteen.server.http_errors import MESSAGE_CHARS_MAX, to_http_error

from ...runtime.conftest import CONTROL, TEMPLATE
from ..mutators import mutate_json
from ..target import Target, tiny_model

_MODELS: tuple[type[RequestBody], ...] = (
    *(ChatRequest, CompletionRequest, ResponseRequest),
    *(OllamaChatRequest, OllamaGenerateRequest, AnswerRequest, CheckRequest),
)
_TOOL_TEMPLATE = "{% if tools %}{{ tools | tojson }}{% endif %}" + TEMPLATE
_ENGINE = SimpleNamespace(
    takes_tools=True, chat_template=_TOOL_TEMPLATE, thinks=False, default_max_tokens=256, context=512
)
_SERVICE = SimpleNamespace(engine=_ENGINE, limits=RequestLimits(body_bytes=1 << 20))
_encoder = PromptEncoder(tiny_model(), ChatTemplate(_TOOL_TEMPLATE, *CONTROL[::2]))


def _fields(model: type[RequestBody]) -> Iterator[str]:
    """The names of the fields of a model and of all that are made from it."""
    yield from (field.alias or name for name, field in model.model_fields.items())
    for made in model.__subclasses__():
        yield from _fields(made)


_WORDS = (
    *sorted({*_fields(RequestBody)}),
    *CONTROL,
    "[key]",  # pydantic's name for a key in the place of an error
)


def check(data: bytes) -> bool:
    accepted = [_accepts(data, model) for model in _MODELS]
    return any(accepted)


def _accepts(data: bytes, model: type[RequestBody]) -> bool:
    call = Call(cast(EngineService, _SERVICE), _request(data))
    try:
        _use(call, _finish(read_body(call, model)))
    except ThirteenError as error:
        return _refused(error)
    return True


def _use(call: Call, body: RequestBody) -> None:
    """Make what a body asks, as the endpoints do."""
    match body:
        case ChatRequest():
            _encode(chat_request(call, body))
        case CompletionRequest():
            Options(max_tokens=body.max_tokens or 1, logprobs=body.logprobs, **body.sampling)
        case ResponseRequest():
            _encode(response_request(call, body))
        case OllamaChatRequest() | OllamaGenerateRequest():
            _encode(ollama_request(call, body))
        case AnswerRequest():
            Options(max_tokens=body.max_tokens, **body.sampling)
            _encoder.encode_conversation(PLAIN.messages(body.question, body.system))
        case CheckRequest():
            check_claim(body.claim)


def _encode(asked: InternalRequest) -> None:
    """Encode a prompt, whose only control tokens are those of the template."""
    prompt = _encoder.encode_conversation(asked.messages, asked.tools.template_fields())
    control = {*tiny_model().control_tokens.values()}
    turns = len(asked.messages) + 1
    assert sum(token in control for token in prompt) == 2 * turns, "begin, and one turn more"


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
    return Request({"type": "http", "method": "POST", "path": "/v1/answers", "headers": headers}, receive)


def _finish(coroutine: Coroutine[Any, Any, RequestBody]) -> RequestBody:
    """Run a coroutine that never waits."""
    try:
        coroutine.send(None)
    except StopIteration as finished:
        body: RequestBody = finished.value
        return body
    raise AssertionError("it waits")


TARGET = Target(check, words=_WORDS, mutate=mutate_json)
