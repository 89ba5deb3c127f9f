"""The HTTP server's routes. They are thin: the engine does the work, the desk hands it in."""

from collections.abc import AsyncIterator, Collection, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from time import time

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from ...errors import ThirteenError
from ..answer import Answer
from ..engine.engine import Options
from ..engine.handle import Handle
from ..engine.majority_vote import MajorityVote
from . import static_files
from .access_middleware import AccessMiddleware
from .api import answer_api, openai_api
from .api.openai_api import CompletionFormatter, ResponseFormatter
from .api.openapi_document import Operation, document, operations
from .api.request_body import read_body
from .api_keys import ApiKeys
from .engine_service import (
    Disconnected,
    EngineService,
    finished,
    merged_pieces,
    pieces,
    voted_answer,
    whole_answers,
)
from .http_errors import KINDS, HttpError, http_error
from .metrics import TEXT_TYPE
from .request_limits import RequestLimits
from .sse import DONE, EventStream, event

_CLIENT_LEFT = 499  # nobody reads it; it is for the metrics


@dataclass
class Server:
    """The routes and what they have in common.

    Attributes:
        desk: where requests are handed in.
        bounds: of requests.
        created: when it began, in seconds of the epoch.
    """

    desk: EngineService
    bounds: RequestLimits
    created: int = field(default_factory=lambda: int(time()))

    @cached_property
    def operations(self) -> dict[str, Operation]:
        """What is served, by path."""
        return {operation.path: operation for operation in operations(self.bounds)}

    async def chat(self, request: Request) -> Response:
        """/v1/chat/completions."""
        fields = await self._fields(request)
        name, adapter = self.desk.model(fields["model"])
        said, engine = openai_api.messages(fields), self.desk.engine
        requests = await self.desk.prepare(
            lambda: openai_api.chat_requests(fields, engine.conversation(said), adapter)
        )
        form = ResponseFormatter(name, engine.model.piece, fields["n"])
        return await self._generated(request, fields, form, self.desk.submit(requests))

    async def completion(self, request: Request) -> Response:
        """/v1/completions."""
        fields = await self._fields(request)
        name, adapter = self.desk.model(fields["model"])
        engine = self.desk.engine
        prompts = [fields["prompt"]] if isinstance(fields["prompt"], str) else fields["prompt"]
        if len(prompts) * fields["n"] > self.bounds.votes:
            raise HttpError(400, f"prompts times n: at most {self.bounds.votes} answers at once", param="n")
        requests = await self.desk.prepare(
            lambda: openai_api.completion_requests(fields, [engine.plain(text) for text in prompts], adapter)
        )
        form = CompletionFormatter(name, engine.model.piece, fields["n"])
        return await self._generated(request, fields, form, self.desk.submit(requests))

    async def answer(self, request: Request) -> Response:
        """/v1/answer."""
        fields = await self._fields(request)
        name, adapter = self.desk.model(fields["model"])
        options = Options(
            system=fields["system"],
            max_tokens=fields["max_tokens"],
            calculator=fields["calculator"],
            adapter=adapter,
        )
        if fields["votes"] > 1:
            return await self._polled(request, fields, name, options)
        asked = await self.desk.prepare(partial(self.desk.engine.request, fields["question"], **options))
        handles = self.desk.submit([asked])
        if fields["stream"]:
            return EventStream(self._answer_events(fields, handles[0], name), handles, "error")
        ended = await whole_answers(request, handles)
        if isinstance(ended, Disconnected) or ended[0].answer is None:
            return Response(status_code=_CLIENT_LEFT)
        self.desk.note(fields["question"], [ended[0].answer])
        return JSONResponse(answer_api.answer_json(name, ended[0].answer))

    async def check(self, request: Request) -> Response:
        """/v1/check."""
        fields = await self._fields(request)
        return JSONResponse(answer_api.check_claim(fields["claim"]))

    async def models(self, _: Request) -> Response:
        """/v1/models."""
        return JSONResponse(openai_api.model_list(self.desk.models, self.created))

    async def model(self, request: Request) -> Response:
        """/v1/models/NAME."""
        name, _ = self.desk.model(request.path_params["model"])
        return JSONResponse(openai_api.model_entry(name, self.created))

    async def health(self, _: Request) -> Response:
        """/health: whether the process is of use at all."""
        return _state("failed" if self.desk.engine.closed else "ok", ok=not self.desk.engine.closed)

    async def ready(self, _: Request) -> Response:
        """/ready: whether it takes work."""
        return _state("ready" if self.desk.ready else "not ready", ok=self.desk.ready)

    async def metrics(self, _: Request) -> Response:
        """/metrics."""
        return Response(self.desk.metrics.text(), media_type=TEXT_TYPE)

    async def openapi(self, _: Request) -> Response:
        """/openapi.json."""
        return JSONResponse(document(self.operations.values()))

    async def _fields(self, request: Request) -> openai_api.Fields:
        """The fields of a request's body, as its route has them."""
        body = self.operations[request.scope["path"]].body
        assert body is not None, "only routes with a body ask for its fields"
        return await read_body(request, body, self.bounds.body_bytes)

    async def _generated(
        self, request: Request, fields: openai_api.Fields, form: ResponseFormatter, handles: Sequence[Handle]
    ) -> Response:
        """The response of chats and completions, at once or as it comes."""
        prompt = fields.get("messages") or fields.get("prompt")
        if fields["stream"]:
            with_usage = bool((fields["stream_options"] or {}).get("include_usage"))
            return EventStream(self._chunks(prompt, form, handles, with_usage), handles)
        ended = await whole_answers(request, handles)
        if isinstance(ended, Disconnected):
            return Response(status_code=_CLIENT_LEFT)
        self.desk.note(prompt, [piece.answer for piece in ended if piece.answer])
        return JSONResponse(form.whole(ended))

    async def _chunks(
        self, prompt: object, form: ResponseFormatter, handles: Sequence[Handle], with_usage: bool
    ) -> AsyncIterator[str]:
        answers: dict[int, Answer] = {}
        begun: set[int] = set()
        more = {"usage": None} if with_usage else {}
        async for number, piece in merged_pieces(handles):
            if piece.answer:
                answers[number] = piece.answer
            yield event({**form.chunk(number, piece, first=number not in begun), **more})
            begun.add(number)
        ended = [answers[number] for number in sorted(answers)]
        if with_usage:
            yield event(form.last(ended))
        yield DONE
        self.desk.note(prompt, ended)

    async def _polled(
        self, request: Request, fields: openai_api.Fields, model: str, options: Options
    ) -> Response:
        """The response to a question that has several answers, of which one wins."""
        ask = partial(self.desk.engine.poll, fields["question"], fields["votes"], **options)
        poll = await self.desk.prepare(ask)
        self.desk.watch(poll.handles)
        if fields["stream"]:
            return EventStream(self._poll_events(fields, poll, model), poll.handles, "error")
        answer = await voted_answer(request, poll)
        if isinstance(answer, Disconnected):
            return Response(status_code=_CLIENT_LEFT)
        self.desk.note(fields["question"], [answer])
        return JSONResponse(answer_api.answer_json(model, answer))

    async def _answer_events(
        self, fields: openai_api.Fields, handle: Handle, model: str
    ) -> AsyncIterator[str]:
        async for name, data in answer_api.answer_events(pieces(handle), model):
            yield event(data, name)
        self.desk.note(fields["question"], [handle.answer()])

    async def _poll_events(
        self, fields: openai_api.Fields, poll: MajorityVote, model: str
    ) -> AsyncIterator[str]:
        answer = finished(await poll)
        yield event(answer_api.answer_json(model, answer), "answer")
        self.desk.note(fields["question"], [answer])


def application(
    desk: EngineService,
    bounds: RequestLimits,
    *,
    keys: ApiKeys | None = None,
    hosts: Collection[str] | None = None,
    origins: Sequence[str] = (),
) -> Starlette:
    """The whole application.

    Args:
        desk: where requests are handed in.
        bounds: of requests.
        keys: those that open it; None lets in everyone.
        hosts: the names by which it may be asked for; None takes any.
        origins: whose pages may use it, as "https://example.org"; "*" is all.
    """
    server = Server(desk, bounds)
    gate = Middleware(AccessMiddleware, metrics=desk.metrics, keys=keys, hosts=hosts)
    cors = Middleware(
        CORSMiddleware,
        allow_origins=origins,
        allow_methods=["GET", "POST"],
        allow_headers=["Authorization", "Content-Type"],
        expose_headers=["Retry-After"],
    )
    routes = [
        Route(served.route, getattr(server, served.name), methods=[served.method])
        for served in server.operations.values()
    ]
    application = Starlette(
        routes=[*routes, *static_files.routes()],
        middleware=[cors, gate] if origins else [gate],
        exception_handlers={
            ThirteenError: _refused,
            HTTPException: _not_routed,
            ClientDisconnect: _left,
            Exception: _refused,
        },
    )
    application.router.redirect_slashes = False  # a path that is not served is not, with a slash or without
    return application


async def _refused(_: Request, error: Exception) -> Response:
    return http_error(error).response()


async def _not_routed(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    status = error.status_code if error.status_code in KINDS else 400
    told = HttpError(status, f"{request.method} {request.url.path}: {error.detail}")
    return told.response(error.headers)


async def _left(_: Request, __: Exception) -> Response:
    return Response(status_code=_CLIENT_LEFT)


def _state(status: str, *, ok: bool) -> Response:
    return JSONResponse({"status": status}, 200 if ok else 503)
