"""The door of a fleet: each request goes on to the replica that has most of it warm.

What decides that stands in a request's body: a conversation goes on where its prefix is cached, and the
requests of an adapter go where that is at work, both by Ray Serve's model multiplexing.
"""

import hashlib
import json
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from ...errors import BusyError
from ..request import BASE
from ..server.access_middleware import check_access
from ..server.http_errors import HttpError, to_http_error
from .ray_session import import_ray
from .replica import ReplicaConfig

_ATTEMPTS = 2  # of a request whose replica is lost before it has said anything
_TOLD = ("type", "http_version", "method", "scheme", "path", "raw_path", "query_string", "headers")


class Router:
    """Where requests come in: each goes on to the replica that has most of it warm."""

    def __init__(self, replicas: Any, fleet: ReplicaConfig) -> None:
        """Stand before the replicas of a fleet, by Ray Serve's handle of them."""
        self._replicas, self._fleet = replicas, fleet

    async def __call__(self, request: Request) -> Response:
        """Have a request answered."""
        fleet = self._fleet
        try:
            check_access(request.scope, fleet.keys, fleet.hosts)
        except HttpError as refused:
            return refused.response()
        body = await _body(request, fleet.bounds.body_bytes)
        scope = {name: request.scope.get(name) for name in _TOLD} | {
            "client": request.scope.get("client"),
            "server": request.scope.get("server"),
        }
        warm = RoutingKey.of(body, fleet.models)
        ray = import_ray()
        for attempt in range(1, _ATTEMPTS + 1):
            answering = self._replicas.options(stream=True, multiplexed_model_id=warm.route).respond.remote(
                scope, body, warm.keys
            )
            try:
                return await _begun(answering)
            except ray.exceptions.RayActorError:
                if attempt == _ATTEMPTS:
                    raise
            except ray.serve.exceptions.BackPressureError as error:
                return to_http_error(BusyError(str(error))).response()
        raise AssertionError("the last attempt returns or raises")


async def _body(request: Request, most: int) -> bytes:
    """A request's body; of one that is too large, as much as shows it."""
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > most:
            break
    return bytes(body)


async def _begun(answering: Any) -> Response:
    """The response that a replica has begun, whose rest is to come."""
    messages = aiter(answering)
    first, *others = await anext(messages)

    async def rest() -> AsyncIterator[bytes]:
        try:
            for message in others:
                yield message.get("body", b"")
            async for came in messages:
                for message in came:
                    yield message.get("body", b"")
        finally:
            answering.cancel()  # of use where the client has left

    response = StreamingResponse(rest(), first["status"])
    response.raw_headers = list(first["headers"])
    return response


@dataclass(frozen=True, slots=True)
class RoutingKey:
    """What of a request a replica can have warm.

    Attributes:
        route: what decides where it goes: the conversation if that has gone on before, else the adapter; ""
            leaves it to the load.
        keys: what the replica is known for afterwards.
    """

    route: str
    keys: tuple[str, ...]

    @classmethod
    def of(cls, body: bytes, models: Mapping[str, str]) -> "RoutingKey":
        """That of a request's body; of one that is not understood, nothing: its replica refuses it."""
        try:
            fields = json.loads(body)
        except (ValueError, RecursionError):
            fields = None
        if not isinstance(fields, dict):
            return cls("", ())
        name = fields.get("model")
        adapter = models.get(name if isinstance(name, str) else next(iter(models)), BASE)
        own = () if adapter == BASE else (f"adapter {adapter}",)
        opening, turns = _opening(fields.get("messages"))
        if not turns:
            return cls(own[0] if own else "", own)
        conversation = _digest([adapter, opening])
        begins = own[0] if own else ""
        return cls(conversation if turns > 1 else begins, (*own, conversation))


def _opening(messages: object) -> tuple[list[Any], int]:
    """A conversation's messages up to the user's first, which stay as they are; and the user's number."""
    if not isinstance(messages, list):
        return [], 0
    users = [
        number
        for number, message in enumerate(messages)
        if isinstance(message, dict) and message.get("role") == "user"
    ]
    return (messages[: users[0] + 1], len(users)) if users else ([], 0)


def _digest(value: object) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()[:24]
