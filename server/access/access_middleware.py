"""ASGI middleware around all routes: Host header check, API keys, unexpected errors, log and metrics."""

from time import monotonic
from typing import Any
from urllib.parse import urlsplit

from starlette.datastructures import MutableHeaders
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ...errors import BusyError
from ..call import Call
from ..engine_service import EngineService
from ..http_errors import OLLAMA_PATHS, HttpError, to_http_error
from ..request_log import ID_HEADER, IGNORED_HEADER, ignored_names, log_request, request_id
from .key_limits import ApiKey
from .listen_config import ListenConfig

# Of CORSMiddleware, beside the allowed origins.
CORS_OPTIONS: dict[str, Any] = {
    "allow_methods": ["GET", "POST", "DELETE"],
    "allow_headers": ["*"],  # OpenAI's client for JavaScript sends headers of its own
    "allow_private_network": True,  # these pages are meant to reach a server on the user's machine
    "expose_headers": ["Retry-After", ID_HEADER, IGNORED_HEADER],
}
_METRICS_PATH = "/metrics"
# Need a key if the server has keys; other paths are public.
_PROTECTED_PATHS = ("/v1/", OLLAMA_PATHS, _METRICS_PATH)


class AccessMiddleware:
    """Refuses requests with a foreign Host header or without a valid API key, and counts and logs all.

    Errors of the application become responses here, because starlette's own handler for unexpected ones is
    outside of all middleware: its responses would have no CORS headers and would not be counted.
    """

    def __init__(self, app: ASGIApp, *, service: EngineService, listen: ListenConfig) -> None:
        self._app, self._service = app, service
        self._keys, self._allowed_hosts = listen.keys, listen.allowed_hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Forward the request to the application, or respond with an error."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        call, began, number = Call(self._service.engine), monotonic(), request_id(scope)
        call.add_to(scope)

        async def send_noted(message: Message) -> None:
            if message["type"] == "http.response.start":
                call.status = message["status"]
                headers = MutableHeaders(scope=message)
                headers.setdefault("X-Content-Type-Options", "nosniff")
                headers[ID_HEADER] = number
                if ignored := ignored_names(call):
                    headers[IGNORED_HEADER] = ", ".join(ignored)
            await send(message)
            call.complete = message["type"] == "http.response.body" and not message.get("more_body", False)

        with self._service.answering(call):
            try:
                await self._respond(call, scope, receive, send_noted)
            finally:
                await self._record(call, scope, began, number)

    async def _respond(self, call: Call, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            call.key = self._check_access(scope)
            if self._keys and call.key and scope["method"] == "POST":
                self._keys.usage.admit(call.key)
            await self._app(scope, receive, send)
        except Exception as error:
            if call.status:
                raise
            full = isinstance(error, BusyError)
            headers = {"Retry-After": str(self._service.retry_after_s)} if full else None
            await to_http_error(error).response(scope["path"], headers)(scope, receive, send)

    def _check_access(self, scope: Scope) -> ApiKey | None:
        """Check the host and the API key of a request, and return the key, None where none is needed."""
        keys, allowed_hosts = self._keys, self._allowed_hosts
        headers = dict(scope["headers"])
        if b"transfer-encoding" in headers and b"content-length" in headers:
            # A proxy in front may go by the other one: what it takes for the body would be a request here.
            message = "Content-Length and Transfer-Encoding exclude each other"
            raise HttpError(400, message, headers={"Connection": "close"})
        if allowed_hosts is not None and (host := _hostname(headers.get(b"host", b""))) not in allowed_hosts:
            raise HttpError(
                403,
                f"host {host[:100]!r} is not allowed: a server without API keys accepts only "
                f"{', '.join(allowed_hosts)}",
            )
        if not keys or not scope["path"].startswith(_PROTECTED_PATHS):
            return None
        authorization = headers.get(b"authorization", b"")
        if scope["path"] == _METRICS_PATH and keys.reads_metrics(authorization):
            return None
        key = keys.identify(authorization)
        if key is None:
            raise HttpError(401, "the API key is missing or wrong: send Authorization: Bearer KEY")
        if scope["path"] == _METRICS_PATH:
            raise HttpError(
                403, "this API key does not read the metrics: the key file needs a line `metrics: KEY`"
            )
        return key

    async def _record(self, call: Call, scope: Scope, began: float, number: str) -> None:
        """Count and log a call that has ended."""
        ends = await call.ends()
        self._service.note_ends(ends)
        self._service.metrics.count(call, _route_path(scope), ends)
        if self._keys and call.key:
            tokens = sum(end.usage.prompt_tokens + end.usage.completion_tokens for end in ends)
            self._keys.usage.add_tokens(call.key, tokens + call.embedded_tokens)
        log_request(call, scope, monotonic() - began, number, ends)


def _route_path(scope: Scope) -> str:
    """Path pattern of the matched route, or "other"; starlette provides it in the scope only since 1.7."""
    endpoint = scope.get("endpoint")
    routes = (route for route in scope["app"].routes if isinstance(route, Route))
    return next((route.path for route in routes if route.endpoint == endpoint), "other")


def _hostname(host_header: bytes) -> str:
    """Host name of a Host header, without the port."""
    try:
        return (urlsplit(f"//{host_header.decode('latin-1')}").hostname or "").lower()
    except ValueError:
        return ""
