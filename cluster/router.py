"""Router of a deployment: forwards each request to a replica that has its prefix or adapter cached.

The routing key comes from the request's body. A conversation returns to the replica that has its prefix
cached; requests for an adapter go where that adapter is in use. Ray Serve's model multiplexing finds the
replica.
"""

import hashlib
import json
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any

from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from ..errors import BusyError
from ..runtime.request import BASE
from ..server.access.access_middleware import CORS_OPTIONS, check_access
from ..server.endpoints.ollama import DEFAULT_TAG
from ..server.http_errors import HttpError, to_http_error
from .ray_session import bind_serve_port_to_loopback, import_ray
from .replica import ReplicaConfig

_NO_SNIFFING = {"X-Content-Type-Options": "nosniff"}
_SCOPE_KEYS = (
    *("type", "http_version", "method", "scheme", "path", "raw_path", "query_string"),
    *("headers", "client", "server"),
)


class Router:
    """Ray Serve ingress: checks access and forwards requests to replicas.

    CORS is around the check, because a browser asks with a preflight, without the API key, whether it may
    send the key.
    """

    def __init__(self, replicas: Any, config: ReplicaConfig) -> None:
        """Create a router.

        Args:
            replicas: Ray Serve's deployment handle.
            config: configuration of the replicas.
        """
        bind_serve_port_to_loopback()
        self._replicas, self._config = replicas, config
        self._application: ASGIApp = self._respond
        if config.listen.origins:
            self._application = CORSMiddleware(self._respond, config.listen.origins, **CORS_OPTIONS)

    async def __call__(self, _: Request) -> Response:
        """Return the response, which Ray Serve calls with the request's scope."""
        return _ApplicationResponse(self._application)

    async def _respond(self, scope: Scope, receive: Receive, send: Send) -> None:
        response = await self._forward(Request(scope, receive))
        await response(scope, receive, send)

    async def _forward(self, request: Request) -> Response:
        config = self._config
        try:
            check_access(request.scope, config.listen.keys, config.listen.allowed_hosts)
        except HttpError as refused:
            return refused.response(request.url.path, _NO_SNIFFING)
        body = await _read_body(request, config.limits.body_bytes)
        scope = {key: request.scope.get(key) for key in _SCOPE_KEYS}
        routing = RoutingKey.from_body(body, config.models)
        replicas = self._replicas.options(stream=True, multiplexed_model_id=routing.route)
        ray = import_ray()
        for last_attempt in (False, True):  # another one if the replica dies before it responds
            try:
                return await _streaming_response(replicas.respond.remote(scope, body, routing.keys))
            except ray.exceptions.RayActorError:
                if last_attempt:
                    raise
            except ray.serve.exceptions.BackPressureError as error:
                return to_http_error(BusyError(str(error))).response(request.url.path, _NO_SNIFFING)
        raise AssertionError("the last attempt returns or raises")


class _ApplicationResponse(Response):
    """Response of an ASGI application: Ray Serve sends it by calling it."""

    def __init__(self, application: ASGIApp) -> None:
        super().__init__()
        self._application = application

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the application."""
        await self._application(scope, receive, send)


async def _read_body(request: Request, max_bytes: int) -> bytes:
    """Read a body until it exceeds `max_bytes`, which makes the replica reject it."""
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > max_bytes:
            break
    return bytes(body)


async def _streaming_response(stream: Any) -> Response:
    """Convert a replica's stream of ASGI messages, once it has started, to a response."""
    batches = aiter(stream)
    start, *others = await anext(batches)

    async def body() -> AsyncIterator[bytes]:
        try:
            for message in others:
                yield message.get("body", b"")
            async for batch in batches:
                for message in batch:
                    yield message.get("body", b"")
        finally:
            stream.cancel()  # stops the replica if the client has disconnected

    response = StreamingResponse(body(), start["status"])
    response.raw_headers = list(start["headers"])
    return response


@dataclass(frozen=True, slots=True)
class RoutingKey:
    """Keys by which a replica is chosen for a request.

    Attributes:
        route: key that selects the replica: the conversation after its first turn, else the adapter. With ""
            the load decides.
        keys: keys that the replica is known for afterwards.
    """

    route: str
    keys: tuple[str, ...]

    @classmethod
    def from_body(cls, body: bytes, models: Mapping[str, str]) -> "RoutingKey":
        """Derive the key from a request's body; an invalid one has no key, and the replica rejects it."""
        try:
            fields = json.loads(body)
        except (ValueError, RecursionError):
            fields = None
        if not isinstance(fields, dict):
            return cls("", ())
        name = fields.get("model")
        if not isinstance(name, str):
            name = next(iter(models))
        adapter = models.get(name, models.get(name.removesuffix(DEFAULT_TAG), BASE))
        adapter_key = "" if adapter == BASE else f"adapter {adapter}"
        prefix, turns = _first_turn(fields.get("messages"))
        try:
            conversation = json.dumps([adapter, prefix])
        except RecursionError:  # writing JSON takes more of the stack than reading it
            return cls("", ())
        conversation_key = hashlib.sha256(conversation.encode()).hexdigest()[:24] if turns else ""
        keys = tuple(key for key in (adapter_key, conversation_key) if key)
        return cls(conversation_key if turns > 1 else adapter_key, keys)


def _first_turn(messages: object) -> tuple[list[Any], int]:
    """Return the messages up to the first of the user, which later turns repeat, and the number of turns."""
    if not isinstance(messages, list):
        return [], 0
    users = [
        index
        for index, message in enumerate(messages)
        if isinstance(message, dict) and message.get("role") == "user"
    ]
    return (messages[: users[0] + 1], len(users)) if users else ([], 0)
