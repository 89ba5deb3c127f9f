"""Endpoints of OpenAI's Responses API, and the responses that they keep in the memory of this process."""

from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

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
from ..engine_service import collect_answers, stream_pieces
from ..http_errors import HttpError
from ..streams import event_stream, format_event
from .endpoints import Endpoints, client_of, source_of

STORE_BYTES_MAX = 16 << 20  # of a namespace; thousands of conversations that fit a context of 2,048 tokens
_ENTRY_BYTES = 1 << 10  # what an entry takes beside its texts
_MESSAGE_BYTES = 1 << 8  # what a message takes beside its text


@dataclass(frozen=True)
class StoredResponse:
    """A response and the conversation that it ends.

    Attributes:
        body: the response as JSON.
        messages: all messages up to and with the answer; without the instructions.
    """

    body: bytes
    messages: tuple[Message, ...]

    @property
    def nbytes(self) -> int:
        """About as much memory as it takes; messages that other responses share count for each of them."""
        texts = sum(
            len(str(message).encode("utf-8", "replace")) + _MESSAGE_BYTES for message in self.messages
        )
        return _ENTRY_BYTES + len(self.body) + texts


class ResponseStore:
    """Responses by namespace and id: the most recently used within a number of bytes per namespace."""

    def __init__(self, capacity: int = STORE_BYTES_MAX) -> None:
        self._capacity = capacity
        self._entries: dict[str, OrderedDict[str, StoredResponse]] = {}
        self._nbytes: dict[str, int] = {}

    def add(self, namespace: str, response_id: str, body: bytes, messages: Sequence[Message]) -> None:
        """Keep a response, and forget those that were not used for longest to make place."""
        response = StoredResponse(body, tuple(messages))
        if response.nbytes > self._capacity:
            return
        entries = self._entries.setdefault(namespace, OrderedDict())
        entries[response_id] = response
        self._nbytes[namespace] = self._nbytes.get(namespace, 0) + response.nbytes
        while self._nbytes[namespace] > self._capacity:
            self.remove(namespace, next(iter(entries)))

    def find(self, namespace: str, response_id: str) -> StoredResponse | None:
        """Find a response of a namespace; it counts as used."""
        entries = self._entries.get(namespace, OrderedDict())
        if response_id in entries:
            entries.move_to_end(response_id)
        return entries.get(response_id)

    def remove(self, namespace: str, response_id: str) -> None:
        """Forget a response, which is there."""
        self._nbytes[namespace] -= self._entries[namespace].pop(response_id).nbytes


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
        tools = self._tools(request, body, engine)
        effort = self._effort(body.reasoning.effort, engine, "reasoning.effort")
        formatter = ResponsesFormatter(body, name, tools, effort)
        keep = partial(self._keep, namespace, messages, formatter)
        conversation, source = responses_api.with_instructions(body, messages), source_of(request, adapter)

        def prepare() -> list[EngineRequest]:
            thinking = body.reasoning.effort.think, body.think_budget
            asked = source.ask(engine, conversation, effort, tools, thinking)
            return [responses_api.response_request(body, asked, self.limits.max_tokens, tools)]

        handles = await self._submit(request, effort.rule.width, prepare)
        if body.stream:
            return event_stream(self._events(formatter, handles[0], keep), handles, "error")
        await collect_answers(request, handles)
        return Response(keep(formatter.response(handles[0].answer())), media_type=JSON_TYPE)

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

    async def _events(
        self, formatter: ResponsesFormatter, handle: Handle, keep: Callable[[Json], bytes]
    ) -> AsyncIterator[str]:
        async for event in formatter.events(stream_pieces(handle)):
            if event["type"] in LAST_EVENTS:  # kept before the client can ask for it
                keep(event["response"])
            yield format_event(event, event["type"])

    def _keep(
        self, namespace: str, messages: Sequence[Message], formatter: ResponsesFormatter, response: Json
    ) -> bytes:
        """Keep a response, if that is asked for; returns it as JSON."""
        body = bytes(JSONResponse(response).body)
        if formatter.body.store:
            self.store.add(namespace, formatter.id, body, [*messages, responses_api.output_message(response)])
        return body
