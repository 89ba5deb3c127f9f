"""Ollama's API: engine requests from request bodies, lines from answers, and descriptions of models."""

import json
import math
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from time import time
from typing import Any

from gguf import LlamaFileType

from ...files.gguf.header import Header
from ...files.hashing import file_sha256
from ...runtime.answer import Answer, Piece
from ...runtime.prompt.prompt_encoder import Message, ToolCall
from ...runtime.request import Request
from ..http_errors import field_error
from .ollama_models import OllamaChatRequest, OllamaOptions, OllamaRequest
from .openai_formatter import FINISH_REASONS
from .tool_calls import AnswerCall, ToolCallParser, ToolUse

Json = dict[str, Any]

_NS = 1_000_000_000
_VALUE_CHARS_MAX = 1 << 12  # of a metadata value that is told; longer ones are templates and tokenizers


def chat_messages(body: OllamaChatRequest) -> list[Message]:
    """Messages of a chat request; a result is that of the last message's call of its tool, or of its place.

    Raises:
        HttpError: 400 a message has calls that are not for its role.
    """
    messages: list[Message] = []
    open_calls: list[ToolCall] = []
    for index, message in enumerate(body.messages):
        if message.tool_calls and message.role != "assistant":
            raise field_error(f"messages[{index}].tool_calls", "is only for the role assistant")
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


def max_tokens(
    options: OllamaOptions, default: int, tokens_max: int, context: int, ignored: list[str] | None
) -> int:
    """Maximum tokens of an answer.

    Args:
        options: options of a request.
        default: how many without an option.
        tokens_max: limit of the server.
        context: tokens of the engine's context.
        ignored: gets the names of the options that are beyond a limit; None refuses them.

    Raises:
        HttpError: 400 an option is beyond a limit.
    """
    wanted = default if options.num_predict is None else options.num_predict
    for name, value, maximum in (
        ("num_ctx", options.num_ctx, context),
        ("num_predict", options.num_predict, tokens_max),
    ):
        if value is None or value <= maximum:
            continue
        if ignored is None:
            raise field_error(f"options.{name}", f"is {value}, at most {maximum}")
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
        grammar=tools.grammar(
            None if body.format is None else tools.schema_grammar(body.format, "format", strict=False)
        ),
    )


def chat_content(text: str, calls: Sequence[AnswerCall] = (), thinking: str = "") -> Json:
    """Text and calls of an answer in /api/chat, and its thought or votes."""
    made = [{"function": {"name": call.name, "arguments": json.loads(call.arguments)}} for call in calls]
    message = {"role": "assistant", "content": text, **_thinking(thinking)}
    return {"message": {**message, **({"tool_calls": made} if made else {})}}


def generate_content(text: str, _: Sequence[AnswerCall] = (), thinking: str = "") -> Json:
    """Text of an answer in /api/generate, and its thought or votes."""
    return {"response": text, **_thinking(thinking)}


def _thinking(text: str) -> Json:
    return {"thinking": text} if text else {}


Content = Callable[[str, Sequence[AnswerCall], str], Json]


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
    return {**_line(model, content("", (), "")), "done": True, "done_reason": "load"}


async def answer_lines(
    model: str, pieces: AsyncIterator[Piece], content: Content, parser: ToolCallParser
) -> AsyncIterator[Json]:
    """Lines of a streamed answer; see answer_json()."""
    async for piece in pieces:
        text, calls = parser.take(piece)
        if text or calls or piece.reasoning:
            yield {**_line(model, content(text, calls, piece.reasoning)), "done": False}
        if piece.answer:
            yield answer_json(model, piece.answer, content("", (), ""))


def _line(model: str, content: Json) -> Json:
    return {"model": model, "created_at": timestamp(time()), **content}


def timestamp(time_s: float) -> str:
    """A Unix time as in RFC 3339."""
    return datetime.fromtimestamp(time_s, UTC).isoformat().replace("+00:00", "Z")


def modified_at(paths: Sequence[Path]) -> str:
    """The last time that one of the files was changed."""
    return timestamp(max(path.stat().st_mtime for path in paths))


@dataclass(frozen=True, slots=True)
class ModelFiles:
    """The files of a served model, as they were when they were read.

    Attributes:
        size: their bytes.
        modified_at: the last time that one was changed.
        digest: SHA-256 of the file, or of the files' SHA-256 if there are two.
    """

    size: int
    modified_at: str
    digest: str

    @classmethod
    def read(cls, paths: Sequence[Path]) -> "ModelFiles":
        """Read the files once from start to end."""
        digests = [file_sha256(path) for path in paths]
        digest = digests[0] if len(digests) == 1 else sha256("".join(digests).encode()).hexdigest()
        return cls(sum(path.stat().st_size for path in paths), modified_at(paths), digest)


def model_details(header: Header) -> Json:
    """Architecture, size and type of a model."""
    family = header.metadata["general.architecture"]
    return {
        "parent_model": "",
        "format": "gguf",
        "family": family,
        "families": [family],
        "parameter_size": _parameter_size(header.weights),
        "quantization_level": _file_type(header),
    }


def _parameter_size(weights: int) -> str:
    return f"{weights / 1e9:.1f}B" if weights >= 1e9 else f"{weights / 1e6:.2f}M"


def _file_type(header: Header) -> str:
    try:
        name = str(LlamaFileType(header.metadata.get("general.file_type")).name)
    except ValueError:
        return "unknown"
    return name.removeprefix("MOSTLY_").removeprefix("ALL_")


def model_info(header: Header) -> Json:
    """Metadata of a file; null stands for arrays and long texts."""
    values = {key: _plain(value) for key, value in header.metadata.items()}
    return {**values, "general.parameter_count": header.weights}


def _plain(value: object) -> object:
    """A value that JSON can hold, or None."""
    match value:
        case str() if len(value) <= _VALUE_CHARS_MAX:
            return value.encode("utf-8", "replace").decode()
        case bool() | int() | float() if math.isfinite(value):
            return value
    return None


def chat_template(header: Header) -> str:
    """The chat template of a file; "" if there is none."""
    return str(header.metadata.get("tokenizer.chat_template", "")).encode("utf-8", "replace").decode()
