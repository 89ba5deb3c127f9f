"""Ollama's API: chats, answers, and descriptions of the models."""

import json
import math
from collections.abc import AsyncIterator, Callable, Sequence
from datetime import UTC, datetime
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from time import time
from typing import Annotated, ClassVar, Literal

from gguf import LlamaFileType
from pydantic import Field
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from ...files.gguf.header import Header
from ...files.gguf.pooling import read_pooling
from ...runtime.answer import Answer, Piece
from ...runtime.grammar.grammar import from_schema
from ...runtime.prompt.prompt_encoder import Message, ToolCall
from ...runtime.prompt.question_prompt import PLAIN
from ..call import Call
from ..engine_service import collect_answers, stream_pieces
from ..http_errors import field_error
from ..streams import format_line, json_lines_stream
from . import fields
from .bodies import RequestBody
from .endpoints import Endpoints, InternalRequest, Operation
from .fields import Json
from .openai import FINISH_REASONS, JSON_OBJECT, reasoning_json, warning_json
from .tool_calls import AnswerCall, ToolCallParser, ToolUse

_NEVER = "9999-12-31T23:59:59Z"
_NS = 1_000_000_000
_VALUE_CHARS_MAX = 1 << 12  # of a metadata value that is told; longer ones are templates and tokenizers


class OllamaOptions(fields.Sampling):
    """Options of a request."""

    num_predict: Annotated[int, Field(ge=-2)] | None = Field(
        None, description="Maximum tokens of the answer; as many as the server allows if not above 0."
    )
    num_ctx: fields.Count | None = Field(None, description="Without effect: the server's context is used.")
    repeat_last_n: Annotated[int, Field(ge=-1, le=2**31 - 1)] = Field(
        64, description="Last tokens of the answer that penalties look at; -1 for all."
    )
    stop: fields.Stop = ""


class OllamaModel(RequestBody):
    """Names a model."""

    model: Annotated[str, Field(min_length=1)]
    keep_alive: float | str | None = Field(None, description="Without effect.")


class OllamaRequest(OllamaModel, fields.Answering):
    """Fields of both requests that generate text."""

    refused: ClassVar[dict[str, str]] = {
        **dict.fromkeys(OllamaOptions.model_fields, "put it into options"),
        **dict.fromkeys(("logprobs", "top_logprobs"), "use /v1/chat/completions"),
        **dict.fromkeys(("raw", "template", "suffix"), "send the whole prompt to /v1/completions"),
        "context": "send the messages to /api/chat",
        "images": "send text",
    }

    stream: bool = True
    format: Literal["", "json"] | fields.Schema = ""
    options: OllamaOptions = OllamaOptions.model_validate({})
    think: fields.EffortName = "low"


class OllamaFunctionCall(RequestBody):
    """A function that the model has called."""

    name: str
    arguments: fields.Schema


class OllamaToolCall(RequestBody):
    """A call in a message of the model."""

    function: OllamaFunctionCall


class OllamaMessage(RequestBody):
    """A message of a conversation."""

    refused: ClassVar[dict[str, str]] = {"images": "send text"}

    role: Literal["system", "user", "assistant", "tool"]
    content: str = ""
    thinking: str | None = Field(None, description="Without effect: it is left out.")
    tool_calls: fields.ToolList[OllamaToolCall] = Field([], description="Only for the role assistant.")
    tool_name: str | None = Field(None, description="For the role tool: whose result it is.")


class OllamaChatRequest(OllamaRequest):
    """Body of /api/chat."""

    messages: fields.MessageList[OllamaMessage] = Field(
        [], description="Without messages, nothing is generated."
    )
    tools: fields.ToolList[fields.Tool] = Field([])


class OllamaGenerateRequest(OllamaRequest):
    """Body of /api/generate."""

    prompt: str = Field("", description="Without a prompt, nothing is generated.")
    system: str | None = None


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
        calls = [
            ToolCall(f"call_{index}_{at}", call.function.name, call.function.arguments)
            for at, call in enumerate(message.tool_calls)
        ]
        answered = None
        if message.role == "tool":
            named = (call for call in open_calls if call.name == message.tool_name)
            answered = message.tool_name or f"call_{index}"
            if call := next(named, next(iter(open_calls), None)):
                open_calls.remove(call)
                answered = call.id
        else:
            open_calls = [*calls]
        messages.append(Message(message.role, message.content, tuple(calls), answered))
    return messages


def ollama_request(
    body: OllamaRequest, messages: Sequence[Message], tools: ToolUse, common: Json
) -> InternalRequest:
    """What a request asks; `common` are options that are not the body's.

    Raises:
        RequestError: an option is invalid for the engine, or the schema is rejected.
    """
    schema = JSON_OBJECT if body.format == "json" else body.format
    return InternalRequest.of(
        messages,
        tools,
        stop=fields.stop_texts(body.options.stop),
        grammar=tools.grammar(None if schema == "" else from_schema(schema)),
        **common,
        **body.options.sampling,
    )


Content = Callable[[str, Sequence[AnswerCall], Piece], Json]


def _chat_content(text: str, calls: Sequence[AnswerCall], piece: Piece) -> Json:
    """An answer in /api/chat, with its thought or votes."""
    message = {"role": "assistant", "content": text, **reasoning_json(piece, "thinking")}
    made = [{"function": {"name": call.name, "arguments": json.loads(call.arguments)}} for call in calls]
    return {"message": {**message, **({"tool_calls": made} if made else {})}}


def _generate_content(text: str, _: Sequence[AnswerCall], piece: Piece) -> Json:
    """An answer in /api/generate, with its thought or votes."""
    return {"response": text, **reasoning_json(piece, "thinking")}


def _answer_json(model: str, answer: Answer, content: Json) -> Json:
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
        **warning_json(answer),
    }


async def _lines(
    model: str, pieces: AsyncIterator[Piece], content: Content, parser: ToolCallParser
) -> AsyncIterator[str]:
    """Lines of a streamed answer."""
    async for piece in pieces:
        text, calls = parser.take(piece)
        if text or calls or piece.reasoning:
            yield format_line({**_line(model, content(text, calls, piece)), "done": False})
        if piece.answer:
            yield format_line(_answer_json(model, piece.answer, content("", (), Piece(""))))


def _line(model: str, content: Json) -> Json:
    return {"model": model, "created_at": _timestamp(time()), **content}


def _timestamp(time_s: float) -> str:
    """A Unix time as in RFC 3339."""
    return datetime.fromtimestamp(time_s, UTC).isoformat().replace("+00:00", "Z")


def _files_json(paths: Sequence[Path]) -> Json:
    """Size and time of a model's files, and a digest of their identity: to hash gigabytes takes seconds."""
    stats = [path.stat() for path in paths]
    identity = [(str(path), stat.st_size, stat.st_mtime_ns) for path, stat in zip(paths, stats, strict=True)]
    return {
        "size": sum(stat.st_size for stat in stats),
        "modified_at": _timestamp(max(stat.st_mtime for stat in stats)),
        "digest": sha256(repr(identity).encode()).hexdigest(),
    }


def _details(header: Header) -> Json:
    """Architecture, size and type of a model."""
    family, weights = header.metadata["general.architecture"], header.weights
    try:
        file_type = str(LlamaFileType(header.metadata.get("general.file_type")).name)
    except ValueError:
        file_type = "unknown"
    return {
        "parent_model": "",
        "format": "gguf",
        "family": family,
        "families": [family],
        "parameter_size": f"{weights / 1e9:.1f}B" if weights >= 1e9 else f"{weights / 1e6:.2f}M",
        "quantization_level": file_type.removeprefix("MOSTLY_").removeprefix("ALL_"),
    }


def _plain(value: object) -> object:
    """A value of a file's metadata that JSON can hold; None stands for arrays and long texts."""
    match value:
        case str() if len(value) <= _VALUE_CHARS_MAX:
            return value.encode("utf-8", "replace").decode()
        case bool() | int() | float() if math.isfinite(value):
            return value
    return None


class OllamaEndpoints(Endpoints):
    """Chat, generate, tags, show, ps and version."""

    operations = (
        Operation("POST", "/api/chat", "ollama_chat", OllamaChatRequest),
        Operation("POST", "/api/generate", "ollama_generate", OllamaGenerateRequest),
        Operation("GET", "/api/tags", "ollama_tags"),
        Operation("POST", "/api/show", "ollama_show", OllamaModel),
        Operation("GET", "/api/ps", "ollama_ps"),
        Operation("GET", "/api/version", "ollama_version"),
    )

    async def ollama_chat(self, request: Request, body: OllamaChatRequest) -> Response:
        """Answer a conversation."""
        return await self._respond(request, body, chat_messages(body), body.tools)

    async def ollama_generate(self, request: Request, body: OllamaGenerateRequest) -> Response:
        """Answer a question."""
        messages = PLAIN.messages(body.prompt, body.system) if body.prompt else []
        return await self._respond(request, body, messages)

    async def _respond(
        self,
        request: Request,
        body: OllamaRequest,
        messages: Sequence[Message],
        offered: Sequence[fields.Tool] = (),
    ) -> Response:
        """Response to a conversation, whole or as a stream; without one, clients ask to load the model."""
        call, (engine, adapter) = Call.of(request), self._model(request, body.model)
        tools = ToolUse.of([tool.function for tool in offered], engine)
        content = _chat_content if isinstance(body, OllamaChatRequest) else _generate_content
        if not messages:
            loaded = _line(call.model, content("", (), Piece("")))
            return JSONResponse({**loaded, "done": True, "done_reason": "load"})
        predicted = body.options.num_predict
        if predicted is not None and predicted <= 0:
            predicted = self.limits.max_tokens
        common = self._common(request, adapter, body, ("think", body.think), num_predict=predicted)
        if (body.options.num_ctx or 0) > engine.context:
            call.ignored.append("num_ctx")
        handles = await self._ask(request, lambda: ollama_request(body, messages, tools, common))
        if body.stream:
            return json_lines_stream(_lines(call.model, stream_pieces(handles[0]), content, tools.parser()))
        (piece,) = await collect_answers(request, handles)
        said = content(*tools.parser().take(piece), piece)
        return JSONResponse(_answer_json(call.model, handles[0].answer(), said))

    async def ollama_tags(self, _: Request) -> Response:
        """List the models."""
        return JSONResponse({"models": self._models()})

    async def ollama_ps(self, _: Request) -> Response:
        """List the models in memory."""
        engine = self.service.engine
        total = engine.plan.memory.total_bytes
        loaded = {
            "size": total,
            "size_vram": total if engine.plan.settings.gpu_layers == "all" else 0,
            "context_length": engine.context,
            "expires_at": _NEVER,
        }
        return JSONResponse({"models": [model | loaded for model in self._models()]})

    async def ollama_show(self, request: Request, body: OllamaModel) -> Response:
        """Describe a model."""
        _, adapter = self._resolve(body.model)
        engine = self.service.engine
        header, able = engine.model.header, {"thinking": engine.thinks, "tools": engine.takes_tools}
        capabilities = ["completion", *(name for name, has in able.items() if has)]
        values = {key: _plain(value) for key, value in header.metadata.items()}
        shown = {
            "modified_at": _files_json(engine.files(adapter))["modified_at"],
            "template": engine.chat_template.encode("utf-8", "replace").decode(),
            "details": _details(header),
            "model_info": values | {"general.parameter_count": header.weights},
            "capabilities": ["embedding"] if read_pooling(header) else capabilities,
        }
        return JSONResponse(shown)

    async def ollama_version(self, _: Request) -> Response:
        """Version of this server."""
        return JSONResponse({"version": version("thirteen")})

    def _models(self) -> list[Json]:
        """Entries of the models in Ollama's lists."""
        engine = self.service.engine
        details = _details(engine.model.header)
        return [
            {"name": name, "model": name, **_files_json(engine.files(adapter)), "details": details}
            for name, adapter in self.service.models.items()
        ]
