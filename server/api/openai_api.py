"""OpenAI chat and text completions, engine requests from request bodies, and embeddings."""

from base64 import b64encode
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from ...runtime.effort import Effort
from ...runtime.engine.engine import Engine
from ...runtime.grammar.grammar import Grammar, from_schema
from ...runtime.prompt.prompt_encoder import Message
from ...runtime.prompt.thinking import resolve_thinking
from ...runtime.request import Request
from ...stats.arrays import Floats
from ..http_errors import HttpError, field_error
from .request_fields import JSON_OBJECT
from .request_models import ChatMessage, ChatRequest, CompletionRequest, OpenAiRequest, text_of
from .tool_calls import ToolUse, parse_call

Json = dict[str, Any]

LOGPROB_ENTRIES_MAX = 1 << 15  # of a response; they take 3 MB of JSON and 40 ms in which nothing else runs


def chat_messages(body: ChatRequest) -> list[Message]:
    """Messages of a chat request; the role "developer" is "system" in chat templates.

    Raises:
        HttpError: 400 a message lacks a field, or has one that is not for its role.
    """
    return [_message(message, f"messages[{index}]") for index, message in enumerate(body.messages)]


def _message(message: ChatMessage, path: str) -> Message:
    if message.content is None and not message.tool_calls:
        raise field_error(f"{path}.content", "is missing")
    if message.tool_calls and message.role != "assistant":
        raise field_error(f"{path}.tool_calls", "is only for the role assistant")
    if (message.role == "tool") == (message.tool_call_id is None):
        raise field_error(f"{path}.tool_call_id", "is required for the role tool and not allowed otherwise")
    role = "system" if message.role == "developer" else message.role
    calls = enumerate(message.tool_calls or ())
    tool_calls = tuple(
        parse_call(
            call.id,
            call.function.name,
            call.function.arguments,
            f"{path}.tool_calls[{index}].function.arguments",
        )
        for index, call in calls
    )
    return Message(role, text_of(message.content), tool_calls, message.tool_call_id)


def format_grammar(
    kind: str, schema: Json | None, param: str, tools: ToolUse, *, strict: bool | None
) -> Grammar | None:
    """Grammar for the format of an answer: text, json_object, or json_schema, which alone has a schema.

    `tools` names what cannot be enforced, unless `strict` refuses it; `param` is the field of the schema.

    Raises:
        RequestError: the schema is invalid or cannot be enforced.
        HttpError: 400 the schema is missing, or the type takes no schema.
    """
    if (schema is None) == (kind == "json_schema"):
        raise field_error(param, "is required for the type json_schema and not allowed otherwise")
    if schema is not None:
        return tools.schema_grammar(schema, param.removesuffix(".schema"), strict=strict)
    return from_schema(JSON_OBJECT) if kind == "json_object" else None


def embeddings_json(model: str, vectors: Floats, tokens: int, encoding: str) -> Json:
    """Response of /v1/embeddings; base64 is of the numbers as little-endian float32."""

    def encoded(vector: Floats) -> str | list[float]:
        if encoding == "base64":
            return b64encode(vector.astype("<f4").tobytes()).decode()
        numbers: list[float] = vector.tolist()
        return numbers

    data = [
        {"object": "embedding", "index": index, "embedding": encoded(vector)}
        for index, vector in enumerate(vectors)
    ]
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    return {"object": "list", "data": data, "model": model, "usage": usage}


class Source(NamedTuple):
    """Who asks, and where: the fields of an engine request that do not depend on the API.

    Attributes:
        adapter: adapter of the engine.
        namespace: namespace of the prefix cache.
        turn: see Request.
    """

    adapter: str
    namespace: str
    turn: str = ""

    def ask(
        self,
        engine: Engine,
        messages: Sequence[Message],
        effort: Effort,
        tools: ToolUse,
        thinking: tuple[bool | None, int | None] = (None, None),
    ) -> Request:
        """The request of a conversation, but for how it is answered. With tools there is nothing to vote on.

        For `thinking`, see Engine.request().

        Raises:
            RequestError: the chat template rejects the conversation.
            HttpError: 400 the tools are too large.
        """
        question = next((one.content for one in reversed(messages) if one.role == "user"), "")
        effort = effort.for_question("" if tools.tools else question)
        think, budget = resolve_thinking(*thinking)
        return Request(
            engine.conversation(messages, tools.template_fields(), think),
            engine.default_max_tokens,
            question=question,
            effort=effort,
            examples=engine.after_examples(messages, think) if effort.votes else (),
            think_budget=budget,
            stop_repeated_calls=bool(tools.tools),
            **self._asdict(),
        )


def chat_requests(body: ChatRequest, asked: Request, tokens_max: int, tools: ToolUse) -> list[Request]:
    """Engine requests of a chat request: `n` for its conversation; see response_request().

    Raises:
        RequestError: a field is invalid for the engine.
        HttpError: 400 fields contradict each other; see also format_grammar() and ToolUse.grammar().
    """
    if body.top_logprobs is not None and not body.logprobs:
        raise field_error("top_logprobs", "requires logprobs: true")
    if body.n > 1 and asked.effort.votes:
        raise HttpError(400, f"reasoning_effort {asked.effort} cannot be combined with n above 1", param="n")
    kind, schema, strict = "text", None, False
    if body.response_format:
        kind, described = body.response_format.type, body.response_format.json_schema
        schema, strict = (described.schema_, described.strict) if described else (None, False)
    param = "response_format.json_schema"
    request = replace(
        asked,
        max_tokens=min(body.max_completion_tokens or body.max_tokens or asked.max_tokens, tokens_max),
        stop=body.stop,
        calculator=body.calculator,
        grammar=tools.grammar(format_grammar(kind, schema, param, tools, strict=strict)),
        logprobs=(body.top_logprobs or 0) if body.logprobs else None,
    )
    return _sampled(body, [request])


def completion_requests(
    body: CompletionRequest, prompts: Sequence[tuple[int, ...]], source: Source
) -> list[Request]:
    """Engine requests of a text completion request: `n` for each prompt; raises as chat_requests() does."""
    requests = [
        Request(
            prompt,
            body.max_tokens,
            stop=body.stop,
            calculator=body.calculator,
            logprobs=body.logprobs,
            report_end=body.echo,
            think_budget=0,  # its text is the whole output
            **source._asdict(),
        )
        for prompt in prompts
    ]
    return _sampled(body, requests)


def check_completion(body: CompletionRequest) -> None:
    """Check a request with `max_tokens: 0`, which the engine never sees.

    Raises:
        HttpError: 400 it has no echo either, or nothing to stream.
    """
    if body.max_tokens:
        return
    _check_stream_options(body)
    if not body.echo:
        raise field_error("max_tokens", "0 requires echo: true")
    if body.stream:
        raise field_error("max_tokens", "0 leaves nothing to stream")


def _check_stream_options(body: OpenAiRequest) -> None:
    if body.stream_options is not None and not body.stream:
        raise field_error("stream_options", "requires stream: true")


def check_entries(body: OpenAiRequest, tokens: int, logprobs: int | None) -> None:
    """Check how many log-probabilities `n` answers of so many tokens may have.

    Raises:
        HttpError: 400 they are too many.
    """
    entries = tokens * body.n * (1 + (logprobs or 0))
    if logprobs is not None and entries > LOGPROB_ENTRIES_MAX:
        raise HttpError(
            400,
            f"up to {entries} log-probabilities, at most {LOGPROB_ENTRIES_MAX}: reduce max_tokens, n or the "
            "number of likeliest tokens",
            param="logprobs",
        )


def _sampled(body: OpenAiRequest, requests: Sequence[Request]) -> list[Request]:
    """Each request `n` times, with other seeds."""
    _check_stream_options(body)
    check_entries(body, sum(one.max_tokens for one in requests), requests[0].logprobs)
    sampling = body.new_sampling()
    if body.n > 1 and body.temperature is None:
        sampling = sampling.stochastic
    samplings = sampling.with_seeds(body.n)
    return [replace(one, sampling=sampling) for one in requests for sampling in samplings]
