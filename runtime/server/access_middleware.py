"""The gate that every request passes: whether it may come in, and what is counted of it."""

from collections.abc import Collection
from urllib.parse import urlsplit

from starlette.datastructures import MutableHeaders
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .api_keys import ApiKeys
from .http_errors import HttpError
from .metrics import Metrics

LOOPBACK = ("localhost", "127.0.0.1", "::1")
_GUARDED = ("/v1/", "/metrics")  # what needs a key where there are keys; the rest tells nothing of anyone


class AccessMiddleware:
    """Middleware that lets in who has a key, or came by a name of this machine."""

    def __init__(
        self, app: ASGIApp, *, metrics: Metrics, keys: ApiKeys | None, hosts: Collection[str] | None
    ) -> None:
        """Put a gate before an application.

        Args:
            app: what is behind it.
            metrics: where responses are counted.
            keys: of those who may come in; None lets in everyone.
            hosts: the names by which the server may be asked for; None takes any. A page from elsewhere can
                have its own name point to this machine, and reaches a server that answers to every name.
        """
        self._app, self._metrics, self._keys, self._hosts = app, metrics, keys, hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request through, or refuse it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def counted(message: Message) -> None:
            if message["type"] == "http.response.start":
                self._metrics.count(_route(scope), message["status"])
                MutableHeaders(scope=message).setdefault("X-Content-Type-Options", "nosniff")
            await send(message)

        try:
            check_access(scope, self._keys, self._hosts)
        except HttpError as refusal:
            await refusal.response()(scope, receive, counted)
        else:
            await self._app(scope, receive, counted)


def check_access(scope: Scope, keys: ApiKeys | None, hosts: Collection[str] | None) -> None:
    """Check whether a request may come in; see Gate.

    Raises:
        RefusalError: it may not.
    """
    headers = dict(scope["headers"])
    if hosts is not None and (host := _name(headers.get(b"host", b""))) not in hosts:
        raise HttpError(
            403,
            f"the host {host[:100]!r} is not a name of this server, which without an API key answers to "
            f"{', '.join(hosts)} only",
        )
    if keys and scope["path"].startswith(_GUARDED) and not keys.hold(headers.get(b"authorization", b"")):
        raise HttpError(401, "the API key is missing or wrong: send Authorization: Bearer KEY")


def _route(scope: Scope) -> str:
    """The path of the route that took a request, "other" if none did; starlette tells it since 1.7 only."""
    taken = scope.get("endpoint")
    routes = (route for route in scope["app"].routes if isinstance(route, Route))
    return next((route.path for route in routes if route.endpoint == taken), "other")


def _name(host: bytes) -> str:
    """The name in a Host header, without its port."""
    try:
        return (urlsplit(f"//{host.decode('latin-1')}").hostname or "").lower()
    except ValueError:
        return ""
