"""ASGI middleware around all routes: Host header check, API keys, unexpected errors, log and metrics."""

from time import monotonic
from typing import Any
from urllib.parse import urlsplit

from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ..errors import BusyError
from .api_keys import ANYONE, METRICS, ApiKey
from .config import ListenConfig
from .engine_service import Call, EngineService
from .http_errors import OLLAMA_PATHS, HttpError, to_http_error
from .request_log import ID_HEADER, IGNORED_HEADER, ignored_names, log_request, request_id

# Of CORSMiddleware, beside the allowed origins.
CORS_OPTIONS: dict[str, Any] = {
    "allow_methods": ["GET", "POST", "DELETE"],
    "allow_headers": ["*"],  # OpenAI's client for JavaScript sends headers of its own
    "allow_private_network": True,  # these pages are meant to reach a server on the user's machine
    "expose_headers": ["Retry-After", ID_HEADER, IGNORED_HEADER],
}
CALL = "thirteen.call"  # the key of a request's Call in its scope
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
        began, number = monotonic(), request_id(scope)
        call = scope[CALL] = Call(self._service, Request(scope, receive))

        async def send_noted(message: Message) -> None:
            if message["type"] == "http.response.start":
                call.status = message["status"]
                headers = MutableHeaders(scope=message)
                headers.setdefault("X-Content-Type-Options", "nosniff")
                headers[ID_HEADER] = number
                if ignored := ignored_names(call):
                    headers[IGNORED_HEADER] = ignored
            await send(message)
            call.complete = message["type"] == "http.response.body" and not message.get("more_body", False)

        with self._service.answering(call):
            try:
                await self._respond(call, scope, receive, send_noted)
            finally:
                call.abort()  # what the client no longer waits for
                await self._record(call, monotonic() - began, number)

    async def _respond(self, call: Call, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            call.key = self._check_access(scope)
            if self._keys and scope["method"] == "POST":
                self._keys.admit(call.key)
            await self._app(scope, receive, send)
        except Exception as error:
            if call.status:
                raise
            full = isinstance(error, BusyError)
            headers = {"Retry-After": str(self._service.retry_after_s)} if full else None
            await to_http_error(error).response(scope["path"], headers)(scope, receive, send)

    def _check_access(self, scope: Scope) -> ApiKey:
        """Check the host and the API key of a request, and return the key."""
        keys, allowed_hosts, path = self._keys, self._allowed_hosts, scope["path"]
        headers = dict(scope["headers"])
        if b"transfer-encoding" in headers and b"content-length" in headers:
            # A proxy in front may go by the other one: what it takes for the body would be a request here.
            message = "Content-Length and Transfer-Encoding exclude each other"
            raise HttpError(400, message, headers={"Connection": "close"})
        if allowed_hosts is not None and (host := _hostname(headers.get(b"host", b""))) not in allowed_hosts:
            names = ", ".join(allowed_hosts)
            message = f"host {host[:100]!r} is not allowed: a server without API keys accepts only {names}"
            raise HttpError(403, message)
        if not keys or not path.startswith(_PROTECTED_PATHS):
            return ANYONE
        key = keys.identify(headers.get(b"authorization", b""))
        if key is None or (key.name == METRICS and path != _METRICS_PATH):
            raise HttpError(401, "the API key is missing or wrong: send Authorization: Bearer KEY")
        if path == _METRICS_PATH and key.name != METRICS:
            raise HttpError(403, "this API key does not read the metrics: that of a line `metrics: KEY` does")
        return key

    async def _record(self, call: Call, took_s: float, number: str) -> None:
        """Count and log a call that has ended."""
        ends = await call.ends()
        self._service.note_ends(ends)
        metrics, route = self._service.metrics, call.request.scope.get("route")
        path, failed = getattr(route, "path", "") or "other", len(call.handles) - len(ends)
        metrics.count_request(path, call.outcome, call.key.name, call.embedded_tokens, failed)
        for end in ends:
            metrics.count_answer(end, call.key.name)
        if self._keys:
            tokens = sum(end.usage.prompt_tokens + end.usage.completion_tokens for end in ends)
            self._keys.add_tokens(call.key, tokens + call.embedded_tokens)
        log_request(call, took_s, number, ends)


def _hostname(host_header: bytes) -> str:
    """Host name of a Host header, without the port."""
    try:
        return (urlsplit(f"//{host_header.decode('latin-1')}").hostname or "").lower()
    except ValueError:
        return ""
