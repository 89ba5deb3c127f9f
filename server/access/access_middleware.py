"""ASGI middleware around all routes: Host header check, API keys, unexpected errors, response counting."""

from collections.abc import Collection
from time import monotonic
from typing import Any
from urllib.parse import urlsplit

from starlette.datastructures import MutableHeaders
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ..http_errors import CLIENT_CLOSED_REQUEST, OLLAMA_PATHS, HttpError, to_http_error
from ..metrics import Metrics
from ..request_log import ID_HEADER, IGNORED_HEADER, ignored_names, log_request, request_id
from .api_keys import ApiKeys
from .request_limits import HEADER_BYTES_MAX

# Of CORSMiddleware, beside the allowed origins.
CORS_OPTIONS: dict[str, Any] = {
    "allow_methods": ["GET", "POST", "DELETE"],
    "allow_headers": ["*"],  # OpenAI's client for JavaScript sends headers of its own
    "allow_private_network": True,  # these pages are meant to reach a server on the user's machine
    "expose_headers": ["Retry-After", ID_HEADER, IGNORED_HEADER],
}
API_KEY = "thirteen.api_key"  # key of the scope that holds the name of a request's API key, or None
LOOPBACK_HOSTS = ("localhost", "127.0.0.1", "::1")
_METRICS_PATH = "/metrics"
# Need a key if the server has keys; other paths are public.
_PROTECTED_PATHS = ("/v1/", OLLAMA_PATHS, _METRICS_PATH)


class AccessMiddleware:
    """Rejects requests with a foreign Host header or without a valid API key, and counts all responses.

    Errors of the application become responses here, because starlette's own handler for unexpected ones is
    outside of all middleware: its responses would have no CORS headers and would not be counted.
    """

    def __init__(
        self, app: ASGIApp, *, metrics: Metrics, keys: ApiKeys | None, allowed_hosts: Collection[str] | None
    ) -> None:
        """Wrap an application.

        Args:
            app: the application to protect.
            metrics: counters for the responses.
            keys: accepted API keys; None disables authentication.
            allowed_hosts: accepted names in the Host header; None accepts any. The check prevents DNS
                rebinding, where a foreign web page points its own domain name at this machine.
        """
        self._app, self._metrics, self._keys, self._allowed_hosts = app, metrics, keys, allowed_hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Forward the request to the application, or respond with an error."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        began, status, sent, number = monotonic(), 0, False, request_id(scope)

        async def send_counted(message: Message) -> None:
            nonlocal status, sent
            if message["type"] == "http.response.start":
                status = message["status"]
                self._metrics.count_response(_route_path(scope), message["status"])
                headers = MutableHeaders(scope=message)
                headers.setdefault("X-Content-Type-Options", "nosniff")
                headers[ID_HEADER] = number
                if ignored := ignored_names(scope):
                    headers[IGNORED_HEADER] = ", ".join(ignored)
            await send(message)
            sent = message["type"] == "http.response.body" and not message.get("more_body", False)

        try:
            scope[API_KEY] = check_access(scope, self._keys, self._allowed_hosts)
            await self._app(scope, receive, send_counted)
        except Exception as error:
            if status:
                raise
            await to_http_error(error).response(scope["path"])(scope, receive, send_counted)
        finally:
            if service := scope.get("state", {}).get("service"):
                service.pinned -= 1
            key = self._keys.name(scope.get(API_KEY) or "") if self._keys else None
            who = {"request_id": number, "key": key}
            await log_request(scope, status if sent else CLIENT_CLOSED_REQUEST, began, who)


def check_access(scope: Scope, keys: ApiKeys | None, allowed_hosts: Collection[str] | None) -> str | None:
    """Check the header, the host and the API key of a request; see AccessMiddleware for the arguments.

    Returns:
        The name of the API key, None where none is needed.

    Raises:
        HttpError: 431 the header is too large, 400 it gives the body two lengths, 403 the host is not
            allowed or the key does not read the metrics, 401 the key is missing or wrong.
    """
    # h11 bounds only a header that arrives in several pieces.
    if (nbytes := _header_bytes(scope)) > HEADER_BYTES_MAX:
        raise HttpError(431, f"a header of {nbytes} bytes; at most {HEADER_BYTES_MAX} are accepted")
    headers = dict(scope["headers"])
    if b"transfer-encoding" in headers and b"content-length" in headers:
        # A proxy in front may go by the other one: what it takes for the body would be a request here.
        raise HttpError(400, "Content-Length and Transfer-Encoding exclude each other", close=True)
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
    if key is not None and scope["path"] == _METRICS_PATH:
        raise HttpError(
            403, "this API key does not read the metrics: the key file needs a line `metrics: KEY`"
        )
    if key is None:
        raise HttpError(401, "the API key is missing or wrong: send Authorization: Bearer KEY")
    return key


def _header_bytes(scope: Scope) -> int:
    """Bytes of the request line and of all headers, with their separators."""
    line = len(scope.get("raw_path") or scope["path"].encode()) + len(scope.get("query_string", b""))
    return line + sum(len(name) + len(value) + 4 for name, value in scope["headers"])


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
