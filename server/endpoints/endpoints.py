"""Base of the endpoints of all APIs: the server's state, reading of bodies and submission."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import ClassVar, TypeVar

import numpy as np
from anyio import to_thread
from starlette.requests import ClientDisconnect, Request

from ...files.gguf.pooling import read_pooling
from ...runtime.effort import Effort
from ...runtime.engine.embedding import NO_EMBEDDINGS, ONLY_EMBEDS, Text
from ...runtime.engine.engine import Engine
from ...runtime.engine.handle import Handle
from ...runtime.request import Request as EngineRequest
from ...stats.arrays import Floats
from ..access.access_middleware import API_KEY
from ..access.request_limits import RequestLimits, client_address
from ..api.openai_api import Source
from ..api.operations import Operation
from ..api.request_body import read_body
from ..api.request_fields import AskedEffort
from ..api.request_models import RequestBody, limited
from ..api.tool_calls import ToolRequest, ToolUse
from ..engine_service import Client, EngineService, until_disconnect
from ..http_errors import HttpError, field_error
from ..served_models import ServedModels

Body = TypeVar("Body", bound=RequestBody)
_TEXTS = 64  # that are embedded before the next look at whether the client is there


@dataclass
class Endpoints:
    """Endpoints of one API.

    Attributes:
        service: the models.
        limits: limits of a request.
        operations: operations of the API, each the name of a method.
    """

    service: ServedModels
    limits: RequestLimits
    operations: ClassVar[tuple[Operation, ...]] = ()

    async def _read_body(self, request: Request, model: type[Body], *, strict: bool = False) -> Body:
        """Read a body; request.state.ignored will be the names of its fields that have no effect."""
        request.state.ignored = ignored = list[str]()
        strict = strict or self.limits.strict
        return await read_body(
            request, limited(model, self.limits), self.limits.body_bytes, None if strict else ignored
        )

    async def _submit(
        self, request: Request, count: int, prepare: Callable[[], Sequence[EngineRequest]]
    ) -> list[Handle]:
        """Submit requests of an HTTP request whose body has been read; see EngineService.submit().

        request.state.handles will be their handles.
        """
        service: EngineService = request.state.service
        submitted = service.submit(client_of(request), request.state.body_bytes, count, prepare)
        request.state.handles = handles = await submitted
        return handles

    def _effort(self, asked: AskedEffort, engine: Engine, param: str) -> Effort:
        """The effort of a request; `param` is its field.

        Raises:
            HttpError: 400 it samples more than the server allows.
        """
        effort, most = asked.effort(thinks=engine.thinks), self.limits.answers
        if (answers := effort.rule.answers) > most:
            raise field_error(param, f"{effort} samples up to {answers} answers, at most {most} here")
        return effort

    def _ignored(self, request: Request) -> list[str] | None:
        """The names of what has no effect in a request whose body has been read; None where it is refused."""
        return None if self.limits.strict else request.state.ignored

    def _tools(self, request: Request, body: ToolRequest, engine: Engine) -> ToolUse:
        """The tools of the answer to a request; see ToolUse.of()."""
        ignored, takes_tools = self._ignored(request), engine.takes_tools
        return ToolUse.of(body, engine.chat_template, ignored, takes_tools=takes_tools)

    def _resolve(self, name: str | None) -> tuple[str, str]:
        """Name and engine adapter of a model; see ServedModels.resolve_model()."""
        return self.service.resolve_model(name)

    async def _model(
        self, request: Request, name: str | None, *, embeds: bool = False
    ) -> tuple[EngineService, str, str]:
        """Service, name and engine adapter of the model of a request.

        request.state.service will be the service, which AccessMiddleware unpins after the response, and
        request.state.model the name.

        Raises:
            HttpError: 400 the model is made for embeddings and these are not asked for, or the reverse.
            ClientDisconnect: the client disconnected while it waited for the model.
        """
        request.state.model, adapter = self._resolve(name)
        if embeds != (read_pooling(self.service.header(request.state.model)) is not None):
            message = f"{request.state.model}: {NO_EMBEDDINGS if embeds else ONLY_EMBEDS}"
            raise HttpError(400, message, param="model")
        using = self._use(request)
        await (until_disconnect(request, using) if self.service.waits(request.state.model) else using)
        return request.state.service, request.state.model, adapter

    async def _use(self, request: Request) -> None:
        """Pin the service and record it in one step, so that it is unpinned however the request ends."""
        request.state.service = await self.service.use(request.state.model)

    async def _embed(
        self,
        request: Request,
        name: str | None,
        texts: Sequence[Text],
        dimensions: int | None,
        truncate: bool,
    ) -> tuple[Floats, int]:
        """Vectors of texts, (texts, dimensions), and the tokens of all; a client that disconnects ends it."""
        service, _, adapter = await self._model(request, name, embeds=True)
        engine, rows = service.engine, list[Floats]()
        async with service.scoring_turn(client_of(request), request.state.body_bytes, 1):
            tokens = await to_thread.run_sync(partial(engine.embedding_tokens, texts, truncate=truncate))
            for start in range(0, len(tokens), _TEXTS):
                if await request.is_disconnected():
                    raise ClientDisconnect
                part = tokens[start : start + _TEXTS]
                rows.append(
                    await to_thread.run_sync(partial(engine.embed, part, dimensions, adapter=adapter))
                )
        request.state.embedded = count = sum(map(len, tokens))
        self.service.metrics.count_prompt(count)
        return np.concatenate(rows), count


def source_of(request: Request, adapter: str) -> Source:
    """The adapter and the client of a request, for its engine requests."""
    client = client_of(request)
    return Source(adapter, client.namespace, client.name)


def client_of(request: Request) -> Client:
    """Who sends a request: a key has a namespace of its own, and clients without keys share one."""
    key = request.scope.get(API_KEY)
    return Client(key or (client_address(request.client.host) if request.client else ""), key or "")
