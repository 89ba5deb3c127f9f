"""Endpoints of OpenAI's API for chat and text completions, embeddings, and the list of models."""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from time import time

from anyio import to_thread
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response

from ...files.gguf.pooling import read_pooling
from ...runtime.answer import Answer, Piece
from ...runtime.engine.engine import Engine
from ...runtime.engine.handle import Handle
from ...runtime.request import Request as EngineRequest
from ..api import openai_api
from ..api.openai_api import Source
from ..api.openai_formatter import CompletionFormatter, EchoedPrompt, EchoFormatter, ResponseFormatter
from ..api.operations import OPENAI_OPERATIONS
from ..api.request_fields import as_list
from ..api.request_models import ChatRequest, CompletionRequest, EmbeddingRequest
from ..engine_service import EngineService, collect_answers, merge_streams
from ..http_errors import HttpError, field_error
from ..streams import DONE_EVENT, event_stream, format_event
from .endpoints import Endpoints, client_of, source_of


@dataclass
class OpenAiEndpoints(Endpoints):
    """/v1/chat/completions, /v1/completions, /v1/embeddings and /v1/models.

    Attributes:
        created: start time in Unix seconds, the `created` field of the models.
    """

    created: int = field(default_factory=lambda: int(time()))
    operations = OPENAI_OPERATIONS

    async def chat(self, request: Request) -> Response:
        """POST /v1/chat/completions."""
        body = await self._read_body(request, ChatRequest)
        service, name, adapter = await self._model(request, body.model)
        engine, source = service.engine, source_of(request, adapter)
        tools = self._tools(request, body, engine)
        effort = self._effort(body.reasoning_effort, engine, "reasoning_effort")

        def prepare() -> list[EngineRequest]:
            messages = openai_api.chat_messages(body)
            asked = source.ask(engine, messages, effort, tools, (body.think, body.think_budget))
            return openai_api.chat_requests(body, asked, self.limits.max_tokens, tools)

        handles = await self._submit(request, max(body.n, effort.rule.width), prepare)
        formatter = ResponseFormatter(name, engine.model.token_to_piece, body.n, tools=tools)
        return await self._completion_response(request, body, formatter, handles)

    async def completion(self, request: Request) -> Response:
        """POST /v1/completions."""
        body = await self._read_body(request, CompletionRequest)
        openai_api.check_completion(body)
        service, name, adapter = await self._model(request, body.model)
        if (count := len(body.prompts) * body.n) > self.limits.answers:
            raise HttpError(400, f"prompts times n is {count}, at most {self.limits.answers}", param="n")
        engine, source = service.engine, source_of(request, adapter)
        formatter = CompletionFormatter(name, engine.model.token_to_piece, body.n)
        echoed: list[EchoedPrompt] = []
        if body.echo:
            echoed = await _echoed_prompts(request, service, body, source)
            formatter = EchoFormatter(name, engine.model.token_to_piece, body.n, prompts=echoed)
        if not body.max_tokens:
            pieces = [prompt.empty_answer for prompt in echoed for _ in range(body.n)]
            return await _whole_response(formatter, pieces)

        def prepare() -> list[EngineRequest]:
            tokens = [prompt.tokens for prompt in echoed] or _prompt_tokens(engine, body)
            return openai_api.completion_requests(body, tokens, source)

        handles = await self._submit(request, count, prepare)
        return await self._completion_response(request, body, formatter, handles)

    async def embeddings(self, request: Request) -> Response:
        """POST /v1/embeddings."""
        body = await self._read_body(request, EmbeddingRequest)
        texts, cut = as_list(body.input), body.truncate
        vectors, tokens = await self._embed(request, body.model, texts, body.dimensions, cut)
        whole = partial(
            openai_api.embeddings_json, request.state.model, vectors, tokens, body.encoding_format
        )
        return await to_thread.run_sync(lambda: JSONResponse(whole()))

    async def models(self, _: Request) -> Response:
        """GET /v1/models."""
        return JSONResponse({"object": "list", "data": [*map(self._model_entry, self.service.models)]})

    async def model(self, request: Request) -> Response:
        """GET /v1/models/{model}."""
        name, _ = self.service.resolve_model(request.path_params["model"])
        return JSONResponse(self._model_entry(name))

    def _model_entry(self, name: str) -> openai_api.Json:
        entry = {"id": name, "object": "model", "created": self.created, "owned_by": "thirteen"}
        if read_pooling(self.service.header(name)):
            return entry | {"capabilities": ["embedding"]}
        return entry | {"default_effort": self.service.default_effort(name, self.limits.answers)}

    async def _completion_response(
        self,
        request: Request,
        body: ChatRequest | CompletionRequest,
        formatter: ResponseFormatter,
        handles: Sequence[Handle],
    ) -> Response:
        """Response of both endpoints, whole or streamed."""
        if body.stream:
            include_usage = body.stream_options is not None and body.stream_options.include_usage
            return event_stream(_chunk_events(formatter, handles, include_usage), handles)
        return await _whole_response(formatter, await collect_answers(request, handles))


async def _whole_response(formatter: ResponseFormatter, pieces: Sequence[Piece]) -> Response:
    """Response with all answers, each given as one piece."""
    return await to_thread.run_sync(lambda: JSONResponse(formatter.response(pieces)))


async def _chunk_events(
    formatter: ResponseFormatter, handles: Sequence[Handle], include_usage: bool
) -> AsyncIterator[str]:
    answers: dict[int, Answer] = {}
    started: set[int] = set()
    usage = {"usage": None} if include_usage else {}
    async for index, piece in merge_streams(handles):
        if piece.answer:
            answers[index] = piece.answer
        yield format_event({**formatter.chunk(index, piece, first=index not in started), **usage})
        started.add(index)
    if include_usage:
        yield format_event(formatter.usage_chunk([answers[index] for index in sorted(answers)]))
    yield DONE_EVENT


def _prompt_tokens(engine: Engine, body: CompletionRequest) -> list[tuple[int, ...]]:
    encode = engine.encode_text
    return [encode(prompt) if isinstance(prompt, str) else tuple(prompt) for prompt in body.prompts]


async def _echoed_prompts(
    request: Request, service: EngineService, body: CompletionRequest, source: Source
) -> list[EchoedPrompt]:
    """The prompts with the log-probabilities of their tokens, if these are asked for."""
    client, size, engine = client_of(request), request.state.body_bytes, service.engine
    async with service.scoring_turn(client, size, len(body.prompts)):
        prompts = await to_thread.run_sync(_prompt_tokens, engine, body)
        if not all(prompts):
            raise field_error("prompt", "is empty")
        most = sum(len(prompt) + body.max_tokens for prompt in prompts)
        openai_api.check_entries(body, most, body.logprobs)
        scored = []
        for text, tokens in zip(body.prompts, prompts, strict=True):
            if await request.is_disconnected():
                raise ClientDisconnect
            logprobs = None
            if body.logprobs is not None:
                score = partial(engine.prompt_logprobs, tokens, body.logprobs, source.adapter)
                logprobs = await to_thread.run_sync(score)
            scored.append(EchoedPrompt(_text(engine, text), tokens, logprobs))
    return scored


def _text(engine: Engine, prompt: str | Sequence[int]) -> str:
    if isinstance(prompt, str):
        return prompt
    return b"".join(map(engine.model.token_to_piece, prompt)).decode("utf-8", "replace")
