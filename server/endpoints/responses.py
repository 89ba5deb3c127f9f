"""Endpoints of OpenAI's Responses API."""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from ...runtime.engine.handle import Handle
from ...runtime.prompt.prompt_encoder import Message
from ...runtime.request import Request as EngineRequest
from ..api import responses_api
from ..api.operations import RESPONSES_OPERATIONS
from ..api.request_body import JSON_TYPE
from ..api.responses_api import LAST_EVENTS, Json, ResponsesFormatter
from ..api.responses_models import ResponseRequest
from ..api.tool_calls import ToolUse
from ..engine_service import collect_answers, stream_pieces
from ..http_errors import HttpError
from ..response_store import ResponseStore, StoredResponse
from ..streams import event_stream, format_event
from .endpoints import Endpoints, client_of, source_of


@dataclass(frozen=True)
class _Turn:
    """A request for a response.

    Attributes:
        namespace: whose it is.
        messages: the conversation without the instructions.
        formatter: formats the response.
    """

    namespace: str
    messages: Sequence[Message]
    formatter: ResponsesFormatter


@dataclass
class ResponsesEndpoints(Endpoints):
    """/v1/responses.

    Attributes:
        store: responses that are kept.
    """

    store: ResponseStore = field(default_factory=ResponseStore)
    operations = RESPONSES_OPERATIONS

    async def create_response(self, request: Request) -> Response:
        """POST /v1/responses."""
        body = await self._read_body(request, ResponseRequest)
        service, name, adapter = await self._model(request, body.model)
        namespace, engine = client_of(request).namespace, service.engine
        messages = [*self._history(namespace, body.previous_response_id), *responses_api.input_messages(body)]
        tools = ToolUse.of(
            body, engine.chat_template, takes_tools=engine.takes_tools, strict=self.limits.strict
        )
        turn = _Turn(namespace, messages, ResponsesFormatter(body, name, tools))
        conversation, source = responses_api.with_instructions(body, messages), source_of(request, adapter)
        width = self._check_effort(body.reasoning.effort, "reasoning.effort")

        def prepare() -> list[EngineRequest]:
            asked = source.ask(engine, conversation, body.reasoning.effort, tools)
            return [responses_api.response_request(body, asked, self.limits.max_tokens, tools)]

        handles = await self._submit(request, width, prepare)
        if body.stream:
            return event_stream(self._events(turn, handles[0]), handles, "error")
        await collect_answers(request, handles)
        response = turn.formatter.response(handles[0].answer())
        return Response(self._finish(turn, response), media_type=JSON_TYPE)

    async def retrieve_response(self, request: Request) -> Response:
        """GET /v1/responses/{response_id}."""
        for name in request.query_params:
            raise HttpError(422, f"{name} is not supported", code="unsupported_parameter", param=name)
        return Response(self._find(request).body, media_type=JSON_TYPE)

    async def delete_response(self, request: Request) -> Response:
        """DELETE /v1/responses/{response_id}."""
        self._find(request)
        response_id = request.path_params["response_id"]
        self.store.remove(client_of(request).namespace, response_id)
        return JSONResponse({"id": response_id, "object": "response.deleted", "deleted": True})

    def _find(self, request: Request) -> StoredResponse:
        """The response that a path names, if it is the client's."""
        response_id = request.path_params["response_id"]
        if (stored := self.store.find(client_of(request).namespace, response_id)) is None:
            raise HttpError(404, f"there is no stored response {response_id[:100]!r}", param="response_id")
        return stored

    def _history(self, namespace: str, response_id: str | None) -> Sequence[Message]:
        """Messages of the conversation that a stored response ends."""
        if not response_id:
            return ()
        if (stored := self.store.find(namespace, response_id)) is None:
            raise HttpError(
                400,
                f"previous_response_id: there is no stored response {response_id[:100]!r}",
                code="previous_response_not_found",
                param="previous_response_id",
            )
        return stored.messages

    async def _events(self, turn: _Turn, handle: Handle) -> AsyncIterator[str]:
        async for event in turn.formatter.events(stream_pieces(handle)):
            if event["type"] in LAST_EVENTS:  # kept before the client can ask for it
                self._finish(turn, event["response"])
            yield format_event(event, event["type"])

    def _finish(self, turn: _Turn, response: Json) -> bytes:
        """Keep a response, if that is asked for; returns it as JSON."""
        body = bytes(JSONResponse(response).body)
        if turn.formatter.body.store:
            messages = [*turn.messages, responses_api.output_message(response)]
            self.store.add(turn.namespace, turn.formatter.id, body, messages)
        return body
