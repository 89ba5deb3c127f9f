"""Base of the endpoints of all formats: model, effort and limits of a request, and its submission."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

from starlette.requests import Request
from starlette.responses import Response

from ...files.gguf.pooling import read_pooling
from ...runtime.effort import Effort
from ...runtime.engine.engine import Engine
from ...runtime.engine.handle import Handle
from ...runtime.llama.embedding_context import NO_EMBEDDINGS, ONLY_EMBEDS
from ...runtime.options import Options
from ...runtime.prompt.prompt_encoder import Message
from ...runtime.request import BASE
from ...runtime.request import Request as EngineRequest
from ..access.request_limits import RequestLimits
from ..call import Call
from ..engine_service import EngineService
from ..http_errors import HttpError, field_error
from .bodies import RequestBody, read_body
from .fields import Answering, read_effort
from .tool_calls import ToolUse

DEFAULT_TAG = ":latest"  # what Ollama's clients add to a name without a tag


@dataclass(frozen=True, slots=True)
class Operation:
    """An operation of a format.

    Attributes:
        method: GET or POST.
        path: path in OpenAPI syntax.
        name: operationId, and the name of the method of the endpoints.
        body: model of the request body, if any.
    """

    method: str
    path: str
    name: str
    body: type[RequestBody] | None = None


@dataclass(frozen=True, slots=True)
class InternalRequest:
    """What every format asks: the next message of a conversation.

    Attributes:
        messages: what was said so far.
        options: how to answer.
        tools: what the answer may call.
        answers: how many answers.
    """

    messages: Sequence[Message]
    options: Options
    tools: ToolUse
    answers: int = 1

    @classmethod
    def of(
        cls, messages: Sequence[Message], tools: ToolUse, effort: Effort, answers: int = 1, **options: Any
    ) -> Self:
        """Ask with these options; with tools, or without a number in the question, nothing is voted on."""
        question = next((message.content for message in reversed(messages) if message.role == "user"), "")
        effort = effort.for_question("" if tools.tools else question)
        made = Options(effort=effort, stop_repeated_calls=bool(tools.tools), **options)
        return cls(messages, made, tools, answers)

    def requests(self, engine: Engine) -> list[EngineRequest]:
        """Requests of the engine, one for each answer.

        Raises:
            RequestError: the chat template rejects the conversation, or an option is invalid for the engine.
        """
        request = engine.chat(self.messages, self.options, self.tools.template_fields())
        return [replace(request, options=options) for options in request.options.with_seeds(self.answers)]


@dataclass
class Endpoints:
    """Endpoints of one format.

    Attributes:
        service: the engine and its models.
        limits: limits of a request.
        operations: operations of the format.
    """

    service: EngineService
    limits: RequestLimits
    operations: ClassVar[tuple[Operation, ...]] = ()

    def handler(self, operation: Operation) -> Callable[[Request], Awaitable[Response]]:
        """The method of an operation, for which the request's body is read."""
        respond, model = getattr(self, operation.name), operation.body
        if model is None:
            return respond  # type: ignore[no-any-return]

        async def with_body(request: Request) -> Response:
            ignored = Call.of(request).ignored
            body = await read_body(request, model, self.limits.body_bytes, ignored)
            response: Response = await respond(request, body)
            return response

        return with_body

    def _resolve(self, name: str | None) -> tuple[str, str]:
        """Name and engine adapter of a model; see EngineService.resolve_model()."""
        known = name is None or name in self.service.models
        return self.service.resolve_model(name if known else str(name).removesuffix(DEFAULT_TAG))

    def _model(self, request: Request, name: str | None, *, embeds: bool = False) -> tuple[Engine, str]:
        """Engine and engine adapter of the model of a request; the call of the request gets its name.

        Raises:
            HttpError: 404 there is no such model, 403 the key may not use it, 400 it is made for embeddings
                and these are not asked for, or the reverse; 503 the server is shutting down.
        """
        call = Call.of(request)
        call.model, adapter = self._resolve(name)
        if call.key and adapter != BASE:
            call.key.check_adapter(call.model, adapter)
        if embeds != (read_pooling(call.engine.model.header) is not None):
            message = f"{call.model}: {NO_EMBEDDINGS if embeds else ONLY_EMBEDS}"
            raise HttpError(400, message, param="model")
        if self.service.draining:
            raise HttpError(503, "the server is shutting down")
        return call.engine, adapter

    async def _submit(
        self, request: Request, prepare: Callable[[], Sequence[EngineRequest]]
    ) -> Sequence[Handle]:
        """Submit requests of an HTTP request; see EngineService.submit()."""
        return await self.service.submit(Call.of(request), prepare)

    async def _ask(self, request: Request, parse: Callable[[], InternalRequest]) -> Sequence[Handle]:
        """Submit what a format asks; it is parsed in a worker thread."""
        engine = Call.of(request).engine
        return await self._submit(request, lambda: parse().requests(engine))

    def _common(
        self,
        request: Request,
        adapter: str,
        body: Answering,
        effort: tuple[str, str | bool],
        **max_tokens: int | None,
    ) -> dict[str, Any]:
        """Options that all formats have; `effort` is the name of a field and its value.

        Raises:
            HttpError: 400 the effort samples more than the server allows.
        """
        call, most, (param, name) = Call.of(request), self.limits.answers, effort
        asked, think = read_effort(name, thinks=call.engine.thinks)
        if (answers := asked.rule.answers) > most:
            raise field_error(param, f"{asked} samples up to {answers} answers, at most {most} here")
        return {
            "adapter": adapter,
            "namespace": call.namespace,
            "effort": asked,
            "think": think,
            "think_budget": body.think_budget,
            "max_tokens": self._max_tokens(request, call.engine.default_max_tokens, **max_tokens),
            "calculator": body.calculator,
        }

    def _max_tokens(self, request: Request, default: int, **asked: int | None) -> int:
        """Maximum tokens of an answer: the first of these fields with a value, within the server's limit."""
        given = {name: tokens for name, tokens in asked.items() if tokens is not None}
        limit = self.limits.max_tokens
        Call.of(request).ignored += [name for name, tokens in given.items() if tokens > limit]
        return min(next(iter(given.values()), default), limit)
