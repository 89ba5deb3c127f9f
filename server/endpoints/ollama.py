"""Endpoints of Ollama's API."""

import asyncio
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from time import perf_counter_ns
from typing import Any

from anyio import to_thread
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from ...files.gguf.header import Header
from ...files.gguf.pooling import read_pooling
from ...runtime.prompt.prompt_encoder import Message, question_messages
from ...runtime.request import Request as EngineRequest
from ..api import ollama_api
from ..api.ollama_api import Content, ModelFiles
from ..api.ollama_models import (
    OllamaChatRequest,
    OllamaEmbeddingRequest,
    OllamaEmbedRequest,
    OllamaGenerateRequest,
    OllamaRequest,
    ShowRequest,
)
from ..api.operations import OLLAMA_OPERATIONS
from ..api.tool_calls import ToolUse
from ..engine_service import collect_answers, stream_pieces
from ..streams import format_line, json_lines_stream
from .endpoints import Endpoints, source_of

_NEVER = "9999-12-31T23:59:59Z"
DEFAULT_TAG = ":latest"


@dataclass
class OllamaEndpoints(Endpoints):
    """/api/: chat, generate, embed, embeddings, tags, show, ps and version."""

    operations = OLLAMA_OPERATIONS
    # By model, with the header that it had; read when first asked for.
    _files: dict[str, tuple[Header, ModelFiles]] = field(default_factory=dict)
    _reading: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def ollama_chat(self, request: Request) -> Response:
        """POST /api/chat."""
        body = await self._read_body(request, OllamaChatRequest)
        return await self._respond(request, body, ollama_api.chat_messages(body), ollama_api.chat_content)

    async def ollama_generate(self, request: Request) -> Response:
        """POST /api/generate."""
        body = await self._read_body(request, OllamaGenerateRequest)
        messages = question_messages(body.prompt, body.system) if body.prompt else []
        return await self._respond(request, body, messages, ollama_api.generate_content)

    async def ollama_embed(self, request: Request) -> Response:
        """POST /api/embed."""
        began, body = perf_counter_ns(), await self._read_body(request, OllamaEmbedRequest)
        vectors, tokens = await self._embed(request, body.model, body.input, body.dimensions, body.truncate)
        made = {"model": request.state.model, "prompt_eval_count": tokens, "load_duration": 0}
        made["total_duration"] = perf_counter_ns() - began
        return await to_thread.run_sync(lambda: JSONResponse(made | {"embeddings": vectors.tolist()}))

    async def ollama_embedding(self, request: Request) -> Response:
        """POST /api/embeddings."""
        body = await self._read_body(request, OllamaEmbeddingRequest)
        vectors, _ = await self._embed(request, body.model, [body.prompt], None, True)
        return JSONResponse({"embedding": vectors[0].tolist()})

    async def ollama_tags(self, _: Request) -> Response:
        """GET /api/tags."""
        return JSONResponse({"models": await self._described_models()})

    async def ollama_show(self, request: Request) -> Response:
        """POST /api/show."""
        name, _ = self._resolve((await self._read_body(request, ShowRequest)).model)
        header = self.service.header(name)
        template = ollama_api.chat_template(header)
        shown = {
            "modified_at": ollama_api.modified_at(self.service.files(name)),
            "template": template,
            "details": ollama_api.model_details(header),
            "model_info": ollama_api.model_info(header),
            "capabilities": ["completion", "thinking", *(["tools"] if "tools" in template else [])],
        }
        if read_pooling(header):
            shown["capabilities"] = ["embedding"]
        return JSONResponse(shown)

    async def ollama_ps(self, _: Request) -> Response:
        """GET /api/ps."""
        described, loaded = await self._described_models(), self.service.services
        in_memory = [
            model | self._loaded_json(name) for model in described if (name := model["name"]) in loaded
        ]
        return JSONResponse({"models": in_memory})

    async def ollama_version(self, _: Request) -> Response:
        """GET /api/version."""
        return JSONResponse({"version": version("thirteen")})

    def _resolve(self, name: str | None) -> tuple[str, str]:
        """The same; ":latest" is what clients add to a name without a tag."""
        if name is not None and name not in self.service.models:
            name = name.removesuffix(DEFAULT_TAG)
        return super()._resolve(name)

    async def _described_models(self) -> list[dict[str, Any]]:
        """Entries of the models in Ollama's lists."""
        async with self._reading:
            for name in self.service.models:
                header = self.service.header(name)
                if name not in self._files or self._files[name][0] is not header:
                    files = await to_thread.run_sync(ModelFiles.read, self.service.files(name))
                    self._files[name] = header, files
        return [
            {"name": name, "model": name, **asdict(files)} | {"details": ollama_api.model_details(header)}
            for name, (header, files) in self._files.items()
        ]

    def _loaded_json(self, name: str) -> dict[str, Any]:
        """Further fields of a loaded model in /api/ps."""
        engine, expires_at = self.service.services[name].engine, self.service.expires_at(name)
        total = engine.plan.memory.total_bytes
        return {
            "size": total,
            "size_vram": total if engine.plan.settings.gpu_layers == "all" else 0,
            "context_length": engine.context,
            "expires_at": ollama_api.timestamp(expires_at) if expires_at else _NEVER,
        }

    async def _respond(
        self, request: Request, body: OllamaRequest, messages: Sequence[Message], content: Content
    ) -> Response:
        """Response to a conversation, whole or as a stream of lines."""
        service, name, adapter = await self._model(request, body.model)
        engine = service.engine
        ignored, tools = self._ignored(request), ToolUse(ignored=self._ignored(request))
        if isinstance(body, OllamaChatRequest):
            tools = self._tools(request, body, engine)
        default, maximum = engine.default_max_tokens, self.limits.max_tokens
        tokens = ollama_api.max_tokens(body.options, default, maximum, engine.context, ignored)
        if not messages:
            return JSONResponse(ollama_api.loaded_json(name, content))
        source, effort = source_of(request, adapter), self._effort(body.think, engine, "think")

        def prepare() -> list[EngineRequest]:
            asked = source.ask(engine, messages, effort, tools, (body.think.think, body.think_budget))
            return [ollama_api.ollama_request(body, asked, tokens, tools)]

        handles = await self._submit(request, effort.rule.width, prepare)
        if body.stream:
            lines = ollama_api.answer_lines(name, stream_pieces(handles[0]), content, tools.parser())
            return json_lines_stream((format_line(line) async for line in lines), handles)
        (piece,) = await collect_answers(request, handles)
        text, calls = tools.parser().take(piece)
        return JSONResponse(
            ollama_api.answer_json(name, handles[0].answer(), content(text, calls, piece.reasoning))
        )
