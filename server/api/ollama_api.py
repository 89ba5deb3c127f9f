"""Ollama's API: engine requests from request bodies, and lines of responses from answers."""

import json
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import replace
from time import time
from typing import Any

from ...runtime.answer import Answer, Piece, VoteTally
from ...runtime.grammar.grammar import from_schema
from ...runtime.prompt.prompt_encoder import Message, ToolCall
from ...runtime.request import Request
from ..http_errors import HttpError
from .model_description import timestamp
from .ollama_models import OllamaChatRequest, OllamaOptions, OllamaRequest
from .openai_formatter import FINISH_REASONS
from .request_models import MAX_TOKENS_DEFAULT
from .tool_calls import AnswerCall, ToolCallParser, ToolUse

Json = dict[str, Any]

_NS = 1_000_000_000


def chat_messages(body: OllamaChatRequest) -> list[Message]:
    """Messages of a chat request; a result is that of the last message's call of its tool, or of its place.

    Raises:
        HttpError: 400 a message has calls that are not for its role.
    """
    messages: list[Message] = []
    open_calls: list[ToolCall] = []
    for index, message in enumerate(body.messages):
        if message.tool_calls and message.role != "assistant":
            param = f"messages[{index}].tool_calls"
            raise HttpError(400, f"{param} is only for the role assistant", param=param)
        calls = tuple(
            ToolCall(f"call_{index}_{at}", call.function.name, call.function.arguments)
            for at, call in enumerate(message.tool_calls)
        )
        if message.role != "tool":
            open_calls = [*calls]
        answered = None
        if message.role == "tool":
            named = (call for call in open_calls if call.name == message.tool_name)
            call = next(named, next(iter(open_calls), None))
            if call:
                open_calls.remove(call)
            answered = call.id if call else message.tool_name or f"call_{index}"
        messages.append(Message(message.role, message.content, calls, answered))
    return messages


def max_tokens(options: OllamaOptions, tokens_max: int, context: int, ignored: list[str] | None) -> int:
    """Maximum tokens of an answer.

    Args:
        options: options of a request.
        tokens_max: limit of the server.
        context: tokens of the engine's context.
        ignored: gets the names of the options that are beyond a limit; None refuses them.

    Raises:
        HttpError: 400 an option is beyond a limit.
    """
    wanted = MAX_TOKENS_DEFAULT if options.num_predict is None else options.num_predict
    for name, value, maximum in (
        ("num_ctx", options.num_ctx, context),
        ("num_predict", options.num_predict, tokens_max),
    ):
        if value is None or value <= maximum:
            continue
        if ignored is None:
            param = f"options.{name}"
            raise HttpError(400, f"{param} is {value}, at most {maximum}", param=param)
        ignored.append(name)
    return min(wanted, tokens_max) if wanted > 0 else tokens_max


def ollama_request(body: OllamaRequest, asked: Request, max_tokens: int, tools: ToolUse) -> Request:
    """Engine request of a request that generates text.

    Raises:
        RequestError: an option is invalid for the engine, or the schema cannot be enforced.
    """
    return replace(
        asked,
        max_tokens=max_tokens,
        sampling=body.options.new_sampling(),
        stop=body.options.stop,
        calculator=body.calculator,
        grammar=tools.grammar(None if body.format is None else from_schema(body.format)),
    )


def chat_content(text: str, calls: Sequence[AnswerCall] = (), tally: VoteTally | None = None) -> Json:
    """Text and calls of an answer in /api/chat."""
    made = [{"function": {"name": call.name, "arguments": json.loads(call.arguments)}} for call in calls]
    message = {"role": "assistant", "content": text, **_thinking(tally)}
    return {"message": {**message, **({"tool_calls": made} if made else {})}}


def generate_content(text: str, _: Sequence[AnswerCall] = (), tally: VoteTally | None = None) -> Json:
    """Text of an answer in /api/generate."""
    return {"response": text, **_thinking(tally)}


def _thinking(tally: VoteTally | None) -> Json:
    return {"thinking": f"{tally.agreement}\n"} if tally else {}


Content = Callable[[str, Sequence[AnswerCall], VoteTally | None], Json]


def answer_json(model: str, answer: Answer, content: Json) -> Json:
    """Response with an answer, or the last line of a stream, whose content has no text."""
    usage, timings = answer.usage, answer.timings
    return {
        **_line(model, content),
        "done": True,
        "done_reason": FINISH_REASONS[answer.stop_reason],
        "total_duration": round((timings.first_token_s + timings.decode_s) * _NS),
        "load_duration": 0,
        "prompt_eval_count": usage.prompt_tokens,
        "prompt_eval_duration": round(timings.prefill_s * _NS),
        "eval_count": usage.completion_tokens,
        "eval_duration": round(timings.decode_s * _NS),
    }


def loaded_json(model: str, content: Content) -> Json:
    """Response to a request that asks for nothing, which clients send to load a model."""
    return {**_line(model, content("", (), None)), "done": True, "done_reason": "load"}


async def answer_lines(
    model: str, pieces: AsyncIterator[Piece], content: Content, parser: ToolCallParser
) -> AsyncIterator[Json]:
    """Lines of a streamed answer; see answer_json()."""
    async for piece in pieces:
        text, calls = parser.take(piece)
        if text or calls or piece.tally:
            yield {**_line(model, content(text, calls, piece.tally)), "done": False}
        if piece.answer:
            yield answer_json(model, piece.answer, content("", (), None))


def _line(model: str, content: Json) -> Json:
    return {"model": model, "created_at": timestamp(time()), **content}
