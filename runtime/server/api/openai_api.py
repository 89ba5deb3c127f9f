"""OpenAI chat and text completions: engine requests from request bodies, responses from answers."""

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from secrets import randbelow
from time import time
from typing import Any, NamedTuple
from uuid import uuid4

from ...answer import Answer
from ...engine.handle import Piece
from ...engine.prompt_encoder import Message, ToolCall
from ...grammar.grammar import Grammar, from_schema
from ...request import SEED_MAX, Request, Sampling, StopReason, TokenLogprob
from ..http_errors import HttpError
from .request_models import (
    ChatMessage,
    ChatRequest,
    CompletionRequest,
    MessageToolCall,
    OpenAiRequest,
    ResponseFormat,
)
from .tool_calls import AnswerCall, ToolCallParser, ToolUse

Json = dict[str, Any]

_FINGERPRINT = f"thirteen-{version('thirteen')}"
LOGPROB_ENTRIES_MAX = 1 << 15  # of a response; they take 3 MB of JSON and 40 ms in which nothing else runs
_LOGPROB_MIN = -9999.0  # OpenAI's value for an impossible token; JSON has no infinity
_FINISH_REASONS = {StopReason.END: "stop", StopReason.STOP: "stop", StopReason.LENGTH: "length"}


def chat_messages(body: ChatRequest) -> list[Message]:
    """Messages of a chat request; the role "developer" is "system" in chat templates.

    Raises:
        HttpError: 400 a message lacks a field, or has one that is not for its role.
    """
    return [_message(message, f"messages[{index}]") for index, message in enumerate(body.messages)]


def _message(message: ChatMessage, path: str) -> Message:
    if message.content is None and not message.tool_calls:
        raise HttpError(400, f"{path}.content is missing", param=f"{path}.content")
    if message.tool_calls and message.role != "assistant":
        raise HttpError(400, f"{path}.tool_calls is only for the role assistant", param=f"{path}.tool_calls")
    if (message.role == "tool") == (message.tool_call_id is None):
        raise HttpError(
            400,
            f"{path}.tool_call_id is required for the role tool and not allowed otherwise",
            param=f"{path}.tool_call_id",
        )
    role = "system" if message.role == "developer" else message.role
    calls = enumerate(message.tool_calls or ())
    tool_calls = tuple(_tool_call(call, f"{path}.tool_calls[{index}]") for index, call in calls)
    return Message(role, message.text, tool_calls, message.tool_call_id)


def _tool_call(call: MessageToolCall, path: str) -> ToolCall:
    try:
        arguments = json.loads(call.function.arguments)
    except (ValueError, RecursionError):
        arguments = None
    if not isinstance(arguments, dict):
        path = f"{path}.function.arguments"
        raise HttpError(400, f"{path} must be a JSON object, as text", param=path)
    return ToolCall(call.id, call.function.name, arguments)


def response_grammar(response_format: ResponseFormat | None) -> Grammar | None:
    """Grammar for the `response_format` of a chat request.

    Raises:
        RequestError: the schema is invalid or cannot be enforced.
        HttpError: 400 the schema is missing, or the type takes no schema.
    """
    if response_format is None:
        return None
    if (response_format.json_schema is None) == (response_format.type == "json_schema"):
        raise HttpError(
            400,
            "response_format.json_schema is required for the type json_schema and not allowed otherwise",
            param="response_format.json_schema",
        )
    if response_format.json_schema:
        return from_schema(response_format.json_schema.schema_)
    return from_schema({"type": "object"}) if response_format.type == "json_object" else None


class Source(NamedTuple):
    """What a request does not say itself: the engine's adapter, and the namespace of the prefix cache."""

    adapter: str
    namespace: str


def chat_requests(
    body: ChatRequest, prompt: tuple[int, ...], source: Source, tools: ToolUse
) -> list[Request]:
    """Engine requests of a chat request: `n` for its prompt.

    Raises:
        RequestError: a field is invalid for the engine.
        HttpError: 400 fields contradict each other; see also response_grammar() and ToolUse.grammar().
    """
    if body.top_logprobs is not None and not body.logprobs:
        raise HttpError(400, "top_logprobs requires logprobs: true", param="top_logprobs")
    max_tokens = body.max_completion_tokens or body.max_tokens
    return _requests(
        body.model_copy(update={"max_tokens": max_tokens}),
        [prompt],
        source,
        logprobs=(body.top_logprobs or 0) if body.logprobs else None,
        grammar=tools.grammar() or response_grammar(body.response_format),
    )


def completion_requests(
    body: CompletionRequest, prompts: Sequence[tuple[int, ...]], source: Source
) -> list[Request]:
    """Engine requests of a text completion request: `n` for each prompt; raises as chat_requests() does."""
    return _requests(body, prompts, source, logprobs=body.logprobs, grammar=None)


def _requests(
    body: OpenAiRequest,
    prompts: Sequence[tuple[int, ...]],
    source: Source,
    *,
    logprobs: int | None,
    grammar: Grammar | None,
) -> list[Request]:
    if body.stream_options is not None and not body.stream:
        raise HttpError(400, "stream_options requires stream: true", param="stream_options")
    entries = len(prompts) * body.n * body.max_tokens * (1 + (logprobs or 0))
    if logprobs is not None and entries > LOGPROB_ENTRIES_MAX:
        raise HttpError(
            400,
            f"up to {entries} log-probabilities, at most {LOGPROB_ENTRIES_MAX}: reduce max_tokens, n or the "
            "number of likeliest tokens",
            param="logprobs",
        )
    return [
        Request(
            prompt,
            body.max_tokens,
            sampling,
            stop=body.stop,
            calculator=body.calculator,
            grammar=grammar,
            adapter=source.adapter,
            namespace=source.namespace,
            logprobs=logprobs,
        )
        for prompt in prompts
        for sampling in _samplings(body)
    ]


def _samplings(body: OpenAiRequest) -> list[Sampling]:
    """Sampling of each of the `n` answers; they differ in the seed."""
    sampling = Sampling(
        body.temperature or 0.0,
        body.top_k,
        body.top_p,
        body.min_p,
        seed=randbelow(SEED_MAX + 1) if body.seed is None else body.seed,
    )
    if body.n > 1 and body.temperature is None:
        sampling = sampling.stochastic
    return sampling.with_seeds(body.n)


@dataclass(frozen=True)
class ResponseFormatter:
    """Formats chat completions; CompletionFormatter formats text completions.

    Attributes:
        model: model name.
        token_bytes: returns the bytes of a token id.
        choices: answers per prompt.
        id: id of the response.
        created: Unix time of the response.
    """

    model: str
    token_bytes: Callable[[int], bytes]
    choices: int
    id: str = field(default_factory=lambda: f"chatcmpl-{uuid4().hex}")
    created: int = field(default_factory=lambda: int(time()))
    response_type = "chat.completion"
    chunk_type = "chat.completion.chunk"

    def response(self, pieces: Sequence[Piece]) -> Json:
        """Response with all answers, each given as one piece."""
        answers = [piece.answer for piece in pieces if piece.answer]
        return {
            **self._header(self.response_type),
            "choices": [self._choice(index, piece) for index, piece in enumerate(pieces)],
            "usage": usage_json(answers, self.choices),
        }

    def chunk(self, index: int, piece: Piece, *, first: bool) -> Json:
        """Stream chunk with one piece of an answer."""
        return {**self._header(self.chunk_type), "choices": [self._chunk_choice(index, piece, first=first)]}

    def usage_chunk(self, answers: Sequence[Answer]) -> Json:
        """Last chunk of a stream, with the usage and no choices."""
        return {**self._header(self.chunk_type), "choices": [], "usage": usage_json(answers, self.choices)}

    def _header(self, object_type: str) -> Json:
        return {
            "id": self.id,
            "object": object_type,
            "created": self.created,
            "model": self.model,
            "system_fingerprint": _FINGERPRINT,
        }

    def _choice(self, index: int, piece: Piece) -> Json:
        message = {"role": "assistant", "content": piece.text, "refusal": None}
        return {"index": index, "message": message, **self._finish(piece)}

    def _chunk_choice(self, index: int, piece: Piece, *, first: bool) -> Json:
        delta = {"role": "assistant", "content": piece.text} if first else {"content": piece.text}
        return {"index": index, "delta": delta, **self._finish(piece)}

    def _finish(self, piece: Piece, calls: Sequence[AnswerCall] = ()) -> Json:
        reason = _FINISH_REASONS[piece.answer.stop_reason] if piece.answer else None
        if calls and reason == "stop":
            reason = "tool_calls"
        logprobs = self._logprobs(piece.logprobs) if piece.logprobs else None
        return {"logprobs": logprobs, "finish_reason": reason}

    def _logprobs(self, logprobs: Sequence[TokenLogprob]) -> Json:
        content = [
            {
                **self._token_logprob(entry.token, entry.logprob),
                "top_logprobs": [self._token_logprob(*top) for top in entry.top],
            }
            for entry in logprobs
        ]
        return {"content": content, "refusal": None}

    def _token_logprob(self, token: int, logprob: float) -> Json:
        data = self.token_bytes(token)
        return {"token": _token_text(data), "logprob": max(logprob, _LOGPROB_MIN), "bytes": list(data)}


@dataclass(frozen=True, kw_only=True)
class ToolCallFormatter(ResponseFormatter):
    """Formats chat completions that may call functions.

    Attributes:
        tools: which functions.
    """

    tools: ToolUse
    _parsers: dict[int, ToolCallParser] = field(default_factory=dict, init=False)

    def _choice(self, index: int, piece: Piece) -> Json:
        text, calls = self._parse(index, piece)
        message: Json = {"role": "assistant", "content": text, "refusal": None}
        if calls:
            message |= {"content": text or None, "tool_calls": [call.to_json() for call in calls]}
        return {"index": index, "message": message, **self._finish(piece, calls)}

    def _chunk_choice(self, index: int, piece: Piece, *, first: bool) -> Json:
        text, calls = self._parse(index, piece)
        delta: Json = {"role": "assistant", "content": text} if first else {"content": text}
        if calls:
            delta["tool_calls"] = [{"index": at, **call.to_json()} for at, call in enumerate(calls)]
        return {"index": index, "delta": delta, **self._finish(piece, calls)}

    def _parse(self, index: int, piece: Piece) -> tuple[str, list[AnswerCall]]:
        """Text and calls of a piece; the calls come with the last one."""
        if index not in self._parsers:
            self._parsers[index] = self.tools.parser()
        text = self._parsers[index].feed(piece.text)
        if not piece.answer:
            return text, []
        rest, calls = self._parsers[index].finish()
        return text + rest, calls


@dataclass(frozen=True)
class CompletionFormatter(ResponseFormatter):
    """Formats text completions."""

    id: str = field(default_factory=lambda: f"cmpl-{uuid4().hex}")
    response_type = "text_completion"
    chunk_type = "text_completion"

    def _choice(self, index: int, piece: Piece) -> Json:
        return {"index": index, "text": piece.text, **self._finish(piece)}

    def _chunk_choice(self, index: int, piece: Piece, *, first: bool) -> Json:
        return self._choice(index, piece)

    def _logprobs(self, logprobs: Sequence[TokenLogprob]) -> Json:
        tokens = [_token_text(self.token_bytes(entry.token)) for entry in logprobs]
        return {
            "tokens": tokens,
            "token_logprobs": [max(entry.logprob, _LOGPROB_MIN) for entry in logprobs],
            "top_logprobs": [
                {
                    _token_text(self.token_bytes(token)): max(logprob, _LOGPROB_MIN)
                    for token, logprob in entry.top
                }
                for entry in logprobs
            ],
            "text_offset": [sum(map(len, tokens[:index])) for index in range(len(tokens))],
        }


def _token_text(data: bytes) -> str:
    """Text of a token; an incomplete UTF-8 sequence becomes U+FFFD."""
    return data.decode("utf-8", "replace")


def usage_json(answers: Sequence[Answer], choices: int) -> Json:
    """Usage of a response: the prompt counts once for its `choices` consecutive answers."""
    prompt = sum(answer.usage.prompt_tokens for answer in answers[::choices])
    completion = sum(answer.usage.completion_tokens for answer in answers)
    cached = sum(answer.usage.cached_tokens for answer in answers[::choices])
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {"cached_tokens": cached},
    }


def model_list(names: Iterable[str], created: int) -> Json:
    """Response of /v1/models."""
    return {"object": "list", "data": [model_entry(name, created) for name in names]}


def model_entry(name: str, created: int) -> Json:
    """Response of /v1/models/{model}."""
    return {"id": name, "object": "model", "created": created, "owned_by": "thirteen"}
