"""Bodies of HTTP requests, each read as all kinds of requests and made into requests of the engine."""

from collections.abc import Coroutine, Iterator, Sequence
from json import loads
from typing import Any

from starlette.requests import Request
from thirteen.errors import ThirteenError
from thirteen.runtime.prompt.chat_template import ChatTemplate
from thirteen.runtime.prompt.prompt_encoder import Message, PromptEncoder, question_messages
from thirteen.runtime.request import Request as EngineRequest
from thirteen.server.access.request_limits import RequestLimits
from thirteen.server.api import ollama_api, openai_api, responses_api
from thirteen.server.api.answer_api import check_claim
from thirteen.server.api.ollama_models import OllamaChatRequest, OllamaGenerateRequest
from thirteen.server.api.openai_api import Source
from thirteen.server.api.request_body import read_body
from thirteen.server.api.request_models import (
    AnswerRequest,
    ChatRequest,
    CheckRequest,
    CompletionRequest,
    RequestBody,
    limited,
)
from thirteen.server.api.responses_models import ResponseRequest
from thirteen.server.api.tool_calls import ToolRequest, ToolUse
from thirteen.server.http_errors import MESSAGE_CHARS_MAX, to_http_error

from ...runtime.conftest import CONTROL, TEMPLATE
from ..mutators import mutate_json
from ..target import Target, tiny_model

_CONTEXT = 256
_LIMITS = RequestLimits(max_tokens=_CONTEXT)
_MODELS: tuple[type[RequestBody], ...] = (
    *(ChatRequest, CompletionRequest, ResponseRequest),
    *(OllamaChatRequest, OllamaGenerateRequest, AnswerRequest, CheckRequest),
)
_TOOL_TEMPLATE = "{% if tools %}{{ tools | tojson }}{% endif %}" + TEMPLATE
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
    try:
        body = limited(model, _LIMITS)
        _use(_finish(read_body(_request(data), body, _LIMITS.body_bytes, [])))
    except ThirteenError as error:
        return _refused(error)
    return True


def _use(body: RequestBody) -> list[EngineRequest]:
    """The requests of the engine, as the endpoints make them."""
    match body:
        case ChatRequest():
            tools = _tools(body)
            asked = _ask(openai_api.chat_messages(body), tools)
            return openai_api.chat_requests(body, asked, _CONTEXT, tools)
        case CompletionRequest():
            openai_api.check_completion(body)
            prompts = [_encoder.encode_text(one) if isinstance(one, str) else one for one in body.prompts]
            return openai_api.completion_requests(body, list(map(tuple, prompts)), Source("base", ""))
        case ResponseRequest():
            messages, tools = responses_api.input_messages(body), _tools(body)
            asked = _ask(responses_api.with_instructions(body, messages), tools)
            return [responses_api.response_request(body, asked, _CONTEXT, tools)]
        case OllamaChatRequest() | OllamaGenerateRequest():
            messages = _ollama_messages(body)
            tools = _tools(body) if isinstance(body, OllamaChatRequest) else ToolUse()
            tokens = ollama_api.max_tokens(body.options, 512, _CONTEXT, _CONTEXT, [])
            return [ollama_api.ollama_request(body, _ask(messages, tools), tokens, tools)]
        case AnswerRequest():
            return [
                EngineRequest(_encoder.encode_question(body.question, body.system), body.max_tokens or 512)
            ]
        case CheckRequest():
            check_claim(body.claim)
    return []


def _tools(body: ToolRequest) -> ToolUse:
    return ToolUse.of(body, _TOOL_TEMPLATE, [], takes_tools=True)


def _ollama_messages(body: OllamaChatRequest | OllamaGenerateRequest) -> list[Message]:
    if isinstance(body, OllamaChatRequest):
        return ollama_api.chat_messages(body)
    return question_messages(body.prompt, body.system)


def _ask(messages: Sequence[Message], tools: ToolUse) -> EngineRequest:
    """The request, whose only control tokens are those of the template."""
    prompt = _encoder.encode_conversation(messages, tools.template_fields())
    control = {*tiny_model().control_tokens.values()}
    assert sum(token in control for token in prompt) == 2 * len(messages) + 2, "begin, and one turn more"
    return EngineRequest(prompt)


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
