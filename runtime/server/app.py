"""Starlette application: routes that parse a request, submit it to the engine and format the response."""

from collections.abc import AsyncIterator, Callable, Collection, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from time import time
from typing import Any, TypeVar

from anyio import to_thread
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from ...errors import ThirteenError
from ..answer import Answer
from ..engine.conversation import Conversation
from ..engine.engine import RequestOptions
from ..engine.handle import Handle
from ..engine.majority_vote import MajorityVote, vote_requests
from ..request import Request as EngineRequest
from .access_middleware import API_KEY, AccessMiddleware
from .api import openai_api
from .api.answer_api import AnswerFormatter, check_claim
from .api.openai_api import CompletionFormatter, ResponseFormatter, Source
from .api.openapi_document import OPERATIONS, openapi_document
from .api.request_body import read_body
from .api.request_models import (
    AnswerRequest,
    ChatRequest,
    CheckRequest,
    CompletionRequest,
    RequestBody,
    limited,
)
from .api_keys import ApiKeys
from .engine_service import (
    Client,
    EngineService,
    collect_answers,
    collect_vote,
    ensure_completed,
    merge_streams,
    stream_pieces,
)
from .fair_turns import FairTurns
from .http_errors import ERROR_TYPES, HttpError, to_http_error
from .metrics import PROMETHEUS_TYPE
from .request_limits import RequestLimits
from .sse import DONE_EVENT, EventStream, format_event
from .static_files import page_routes

Body = TypeVar("Body", bound=RequestBody)

_CLIENT_CLOSED_REQUEST = 499  # nginx's status for a disconnected client; only the metrics show it


@dataclass
class Server:
    """Endpoints and their shared state.

    Attributes:
        service: submits requests to the engine.
        limits: limits of a request.
        checks: turns at checking arithmetic.
        created: start time in Unix seconds, the `created` field of the models.
    """

    service: EngineService
    limits: RequestLimits
    checks: FairTurns = field(default_factory=FairTurns)
    created: int = field(default_factory=lambda: int(time()))

    @cached_property
    def document(self) -> dict[str, Any]:
        """The OpenAPI document."""
        return openapi_document(self.limits)

    async def chat(self, request: Request) -> Response:
        """POST /v1/chat/completions."""
        body = await self._read_body(request, ChatRequest)
        name, adapter = self.service.resolve_model(body.model)
        messages, engine = openai_api.chat_messages(body), self.service.engine
        source = Source(adapter, _client(request).namespace)
        handles = await self._submit(
            request, body.n, lambda: openai_api.chat_requests(body, engine.conversation(messages), source)
        )
        formatter = ResponseFormatter(name, engine.model.token_to_piece, body.n)
        return await self._completion_response(request, body, formatter, handles)

    async def completion(self, request: Request) -> Response:
        """POST /v1/completions."""
        body = await self._read_body(request, CompletionRequest)
        name, adapter = self.service.resolve_model(body.model)
        engine = self.service.engine
        if (count := len(body.prompt) * body.n) > self.limits.votes:
            raise HttpError(400, f"prompts times n is {count}, at most {self.limits.votes}", param="n")
        source = Source(adapter, _client(request).namespace)

        def prepare() -> list[EngineRequest]:
            tokens = [engine.encode_text(text) for text in body.prompt]
            return openai_api.completion_requests(body, tokens, source)

        handles = await self._submit(request, count, prepare)
        formatter = CompletionFormatter(name, engine.model.token_to_piece, body.n)
        return await self._completion_response(request, body, formatter, handles)

    async def answer(self, request: Request) -> Response:
        """POST /v1/answer."""
        body = await self._read_body(request, AnswerRequest)
        name, adapter = self.service.resolve_model(body.model)
        options = RequestOptions(
            system=body.system,
            max_tokens=body.max_tokens,
            calculator=body.calculator,
            adapter=adapter,
            namespace=_client(request).namespace,
        )
        engine = self.service.engine
        conversation = Conversation(engine, body.system)
        for turn in body.turns:
            conversation.add(turn.question, turn.answer)

        def prepare() -> list[EngineRequest]:
            if body.turns:
                asked = conversation.next_turn(body.question, **options).request
            else:
                asked = engine.request(body.question, **options)
            return vote_requests(asked, body.votes) if body.votes > 1 else [asked]

        handles = await self._submit(request, body.votes, prepare)
        formatter = AnswerFormatter(name, len(body.turns) - len(conversation.messages) // 2)
        if body.votes > 1:
            return await self._vote_response(request, body, formatter, MajorityVote(handles))
        if body.stream:
            return EventStream(self._answer_events(body, formatter, handles[0]), handles, "error")
        await collect_answers(request, handles)
        return self._answer_response(body, formatter, handles[0].answer())

    async def check(self, request: Request) -> Response:
        """POST /v1/check."""
        body = await self._read_body(request, CheckRequest)
        async with self.checks.turn(_client(request).name, request.state.body_bytes):
            result = await to_thread.run_sync(check_claim, body.claim)
        return JSONResponse(result)

    async def models(self, _: Request) -> Response:
        """GET /v1/models."""
        return JSONResponse(openai_api.model_list(self.service.models, self.created))

    async def model(self, request: Request) -> Response:
        """GET /v1/models/{model}."""
        name, _ = self.service.resolve_model(request.path_params["model"])
        return JSONResponse(openai_api.model_entry(name, self.created))

    async def health(self, _: Request) -> Response:
        """GET /health: liveness."""
        failed = self.service.engine.closed
        return _status_response("failed" if failed else "ok", ok=not failed)

    async def ready(self, _: Request) -> Response:
        """GET /ready: readiness."""
        return _status_response("ready" if self.service.ready else "not ready", ok=self.service.ready)

    async def metrics(self, _: Request) -> Response:
        """GET /metrics."""
        return Response(self.service.metrics.render(), media_type=PROMETHEUS_TYPE)

    async def openapi(self, _: Request) -> Response:
        """GET /openapi.json."""
        return JSONResponse(self.document)

    async def _read_body(self, request: Request, model: type[Body]) -> Body:
        return await read_body(request, limited(model, self.limits), self.limits.body_bytes)

    async def _submit(
        self, request: Request, count: int, prepare: Callable[[], Sequence[EngineRequest]]
    ) -> list[Handle]:
        return await self.service.submit(_client(request), request.state.body_bytes, count, prepare)

    async def _completion_response(
        self,
        request: Request,
        body: ChatRequest | CompletionRequest,
        formatter: ResponseFormatter,
        handles: Sequence[Handle],
    ) -> Response:
        """Response of both OpenAI endpoints, whole or streamed."""
        if body.stream:
            include_usage = body.stream_options is not None and body.stream_options.include_usage
            return EventStream(
                self._chunk_events(body.prompt_json, formatter, handles, include_usage), handles
            )
        pieces = await collect_answers(request, handles)
        self.service.log_answers(body.prompt_json, [piece.answer for piece in pieces if piece.answer])
        return await to_thread.run_sync(lambda: JSONResponse(formatter.response(pieces)))

    async def _chunk_events(
        self, prompt: object, formatter: ResponseFormatter, handles: Sequence[Handle], include_usage: bool
    ) -> AsyncIterator[str]:
        answers: dict[int, Answer] = {}
        started: set[int] = set()
        usage = {"usage": None} if include_usage else {}
        async for index, piece in merge_streams(handles):
            if piece.answer:
                answers[index] = piece.answer
            yield format_event({**formatter.chunk(index, piece, first=index not in started), **usage})
            started.add(index)
        ordered = [answers[index] for index in sorted(answers)]
        if include_usage:
            yield format_event(formatter.usage_chunk(ordered))
        yield DONE_EVENT
        self.service.log_answers(prompt, ordered)

    async def _vote_response(
        self, request: Request, body: AnswerRequest, formatter: AnswerFormatter, vote: MajorityVote
    ) -> Response:
        """Response of /v1/answer by majority vote; a stream has one event, the winning answer."""
        if body.stream:
            return EventStream(self._vote_events(body, formatter, vote), vote.handles, "error")
        return self._answer_response(body, formatter, await collect_vote(request, vote))

    def _answer_response(self, body: AnswerRequest, formatter: AnswerFormatter, answer: Answer) -> Response:
        self.service.log_answers(body.question, [answer])
        return JSONResponse(formatter.response(answer))

    async def _answer_events(
        self, body: AnswerRequest, formatter: AnswerFormatter, handle: Handle
    ) -> AsyncIterator[str]:
        async for name, data in formatter.events(stream_pieces(handle)):
            yield format_event(data, name)
        self.service.log_answers(body.question, [handle.answer()])

    async def _vote_events(
        self, body: AnswerRequest, formatter: AnswerFormatter, vote: MajorityVote
    ) -> AsyncIterator[str]:
        answer = ensure_completed(await vote)
        yield format_event(formatter.response(answer), "answer")
        self.service.log_answers(body.question, [answer])


def create_app(
    service: EngineService,
    limits: RequestLimits,
    *,
    keys: ApiKeys | None = None,
    allowed_hosts: Collection[str] | None = None,
    origins: Sequence[str] = (),
) -> Starlette:
    """Create the application: API routes, web page, middleware and error handlers.

    Args:
        service: submits requests to the engine.
        limits: limits of a request.
        keys: accepted API keys; None disables authentication.
        allowed_hosts: accepted names in the Host header; None accepts any.
        origins: origins allowed by CORS, for example "https://example.org"; "*" allows all.
    """
    server = Server(service, limits)
    access = Middleware(AccessMiddleware, metrics=service.metrics, keys=keys, allowed_hosts=allowed_hosts)
    cors = Middleware(
        CORSMiddleware,
        allow_origins=origins,
        allow_methods=["GET", "POST"],
        allow_headers=["Authorization", "Content-Type"],
        expose_headers=["Retry-After"],
    )
    api_routes = [
        Route(operation.route, getattr(server, operation.name), methods=[operation.method])
        for operation in OPERATIONS
    ]
    app = Starlette(
        routes=[*api_routes, *page_routes()],
        middleware=[cors, access] if origins else [access],
        exception_handlers={
            HTTPException: _handle_http_exception,
            ClientDisconnect: _handle_disconnect,
            ThirteenError: _handle_error,
            Exception: _handle_error,
        },
    )
    app.router.redirect_slashes = False  # an unknown path with a trailing slash is 404, not a redirect
    return app


def _client(request: Request) -> Client:
    """Who sends a request: a key has a namespace of its own, and clients without keys share one."""
    key = request.scope.get(API_KEY)
    return Client(key or (request.client.host if request.client else ""), key or "")


async def _handle_error(_: Request, error: Exception) -> Response:
    return to_http_error(error).response()


async def _handle_http_exception(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    status = error.status_code if error.status_code in ERROR_TYPES else 400
    return HttpError(status, f"{request.method} {request.url.path}: {error.detail}").response(error.headers)


async def _handle_disconnect(_: Request, __: Exception) -> Response:
    return Response(status_code=_CLIENT_CLOSED_REQUEST)


def _status_response(status: str, *, ok: bool) -> Response:
    return JSONResponse({"status": status}, 200 if ok else 503)
