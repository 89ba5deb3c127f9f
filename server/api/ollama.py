"""Ollama's API: chats, answers, and descriptions of the models."""

import json
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from hashlib import sha256
from importlib.metadata import version
from time import time
from typing import Annotated, Literal

from gguf import LlamaFileType
from pydantic import Field
from starlette.responses import JSONResponse, Response

from ...files.trusted_files import file_stamp
from ...runtime.grammar import from_schema
from ...runtime.options import Request
from ...runtime.prompt.prompt_encoder import Message, ToolCall
from ...runtime.prompt.question_prompt import PLAIN
from ..engine_service import Call
from ..http_errors import HttpError, check_field
from . import bodies
from .bodies import Json, RequestBody
from .core import FINISH_REASONS, Format, Said, answer_options, chat_request, format_line, respond
from .tool_calls import ToolUse

_NS = 1_000_000_000


class OllamaOptions(bodies.Sampling):
    """Options of a request."""

    num_predict: Annotated[int, Field(ge=-2)] | None = None  # if not above 0, as many as the server allows
    repeat_last_n: Annotated[int, Field(ge=-1, le=2**31 - 1)] = 64
    stop: bodies.Stop = Field([])


class OllamaModel(RequestBody):
    """Names a model."""

    model: Annotated[str, Field(min_length=1)]


class OllamaRequest(OllamaModel, bodies.Answering):
    """Fields of both requests that generate text."""

    stream: bool = True
    format: Literal["", "json"] | bodies.Schema = ""
    options: OllamaOptions = OllamaOptions.model_validate({})
    think: bodies.EffortName = "low"


class OllamaFunctionCall(RequestBody):
    """A function that the model has called."""

    name: str
    arguments: bodies.Schema


class OllamaToolCall(RequestBody):
    """A call in a message of the model."""

    function: OllamaFunctionCall


class OllamaMessage(RequestBody):
    """A message of a conversation."""

    role: Literal["system", "user", "assistant", "tool"]
    content: str = ""
    tool_calls: bodies.ToolList[OllamaToolCall] = Field([], description="Only for the role assistant.")
    tool_name: str | None = Field(None, description="For the role tool: whose result it is.")


class OllamaChatRequest(OllamaRequest):
    """Body of /api/chat."""

    messages: bodies.MessageList[OllamaMessage] = Field([], description="Without any, nothing is generated.")
    tools: bodies.ToolList[bodies.Tool] = Field([])


class OllamaGenerateRequest(OllamaRequest):
    """Body of /api/generate."""

    prompt: str = Field("", description="Without a prompt, nothing is generated.")
    system: str | None = None


class OllamaFormat(Format):
    """Prints an answer of /api/chat or /api/generate: whole, or as lines."""

    media_type = "application/x-ndjson"

    def __init__(self, model: str, *, chat: bool) -> None:
        self._model, self._chat = model, chat

    def line(self, said: Said | None, **fields: object) -> Json:
        """A line with the text, thought and calls of an event."""
        content: Json = {"content" if self._chat else "response": said.text if said else ""}
        if said:
            content |= said.reasoning("thinking")
        if said and said.calls:
            calls = ({"name": call.name, "arguments": json.loads(call.arguments)} for call in said.calls)
            content["tool_calls"] = [{"function": call} for call in calls]
        content = {"message": {"role": "assistant", **content}} if self._chat else content
        return {"model": self._model, "created_at": _timestamp(time()), **content, **fields}

    def whole(self, answers: Sequence[Said]) -> Json:
        return self.line(answers[0], **_end(answers[0]))

    def part(self, said: Said) -> Iterator[str]:
        if said.text or said.calls or said.piece.reasoning:
            yield format_line(self.line(said, done=False))
        if said.piece.answer:
            yield format_line(self.line(None, **_end(said)))

    def failed(self, error: HttpError) -> str:
        return format_line({"error": error.message})


def _end(said: Said) -> Json:
    usage, timings = said.answer.usage, said.answer.timings
    return {
        "done": True,
        "done_reason": FINISH_REASONS[said.answer.stop_reason],
        "total_duration": round((timings.first_token_s + timings.decode_s) * _NS),
        "load_duration": 0,
        "prompt_eval_count": usage.prompt_tokens,
        "prompt_eval_duration": round(timings.prefill_s * _NS),
        "eval_count": usage.completion_tokens,
        "eval_duration": round(timings.decode_s * _NS),
        **said.warning,
    }


def _timestamp(time_s: float) -> str:
    """A Unix time as in RFC 3339."""
    return datetime.fromtimestamp(time_s, UTC).isoformat().replace("+00:00", "Z")


async def chat(call: Call, body: OllamaChatRequest) -> Response:
    """Answer a conversation."""
    messages: list[Message] = []
    for index, message in enumerate(body.messages):
        valid = message.role == "assistant" or not message.tool_calls
        check_field(valid, f"messages[{index}].tool_calls", "is only for the role assistant")
        made = [one.function for one in message.tool_calls]
        calls = tuple(ToolCall(one.name, one.name, one.arguments) for one in made)  # the name is the id, too
        answered = (message.tool_name or f"call_{index}") if message.role == "tool" else None
        messages.append(Message(message.role, message.content, calls, answered))
    return await _answer(call, body, messages)


async def generate(call: Call, body: OllamaGenerateRequest) -> Response:
    """Answer a question."""
    return await _answer(call, body, PLAIN.messages(body.prompt, body.system) if body.prompt else [])


async def _answer(call: Call, body: OllamaRequest, messages: Sequence[Message]) -> Response:
    """Response to a conversation; without one, clients ask to load the model."""
    offered = body.tools if isinstance(body, OllamaChatRequest) else []
    form = OllamaFormat(call.model, chat=isinstance(body, OllamaChatRequest))
    if not messages:
        return JSONResponse(form.line(None, done=True, done_reason="load"))
    tools = ToolUse.of([tool.function for tool in offered], call.engine)
    predicted = body.options.num_predict
    most = call.service.limits.max_tokens if predicted is not None and predicted <= 0 else predicted
    options = answer_options(call, body, body.think, num_predict=most)
    schema = {"type": "object"} if body.format == "json" else body.format or None

    def prepare() -> list[Request]:
        more = {"stop": body.options.stop, "grammar": from_schema(schema) if schema else None}
        return [chat_request(call, messages, tools, body.options, options | more)]

    await call.submit(prepare)
    return await respond(call, form, tools, stream=body.stream)


async def tags(call: Call) -> Response:
    """List the models."""
    return JSONResponse({"models": [_entry(call, *served) for served in call.service.models.items()]})


def _entry(call: Call, name: str, adapter: str) -> Json:
    paths = call.engine.files(adapter)
    return {
        "name": name,
        "model": name,
        "size": sum(path.stat().st_size for path in paths),
        "modified_at": _timestamp(max(path.stat().st_mtime for path in paths)),
        "digest": sha256("".join(map(file_stamp, paths)).encode()).hexdigest(),
        "details": _details(call),
    }


async def show(call: Call, body: OllamaModel) -> Response:
    """Describe a model."""
    engine, header = call.engine, call.engine.model.header
    able = {"completion": True, "thinking": engine.thinks, "tools": engine.takes_tools}
    numbers = {key: value for key, value in header.metadata.items() if isinstance(value, int)}
    family = {"general.architecture": header.metadata["general.architecture"]}
    shown = {
        "template": engine.chat_template.encode("utf-8", "replace").decode(),
        "details": _details(call),
        "model_info": numbers | family | {"general.parameter_count": header.weights},
        "capabilities": ["embedding"] if engine.plan.embeds else [one for one, has in able.items() if has],
    }
    return JSONResponse(shown)


async def server_version(_: Call) -> Response:
    """Version of this server."""
    return JSONResponse({"version": version("thirteen")})


def _details(call: Call) -> Json:
    header = call.engine.model.header
    number, weights = header.metadata.get("general.file_type"), header.weights
    file_type = next((known.name for known in LlamaFileType if known == number), "unknown")
    return {
        "format": "gguf",
        "family": header.metadata["general.architecture"],
        "parameter_size": f"{weights / 1e9:.1f}B" if weights >= 1e9 else f"{weights / 1e6:.2f}M",
        "quantization_level": file_type.removeprefix("MOSTLY_").removeprefix("ALL_"),
    }
