"""The folder on loopback, with the headers under which a browser gives a page threads."""

import socket
from collections.abc import Callable
from pathlib import Path

import uvicorn
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.routing import Mount
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ..errors import RequestError

_HOST = "127.0.0.1"
_HEADERS = {
    b"cross-origin-opener-policy": b"same-origin",
    b"cross-origin-embedder-policy": b"require-corp",
    b"cross-origin-resource-policy": b"same-origin",
    b"x-content-type-options": b"nosniff",
    b"referrer-policy": b"no-referrer",
    b"cache-control": b"no-cache",
}


class _Isolated:
    """Adds the headers to every response."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def sent(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], *_HEADERS.items()]
            await send(message)

        await self._app(scope, receive, sent)


def isolated_app(folder: Path) -> Starlette:
    """The folder as an application."""
    files = Mount("/", StaticFiles(directory=folder, html=True))
    return Starlette(routes=[files], middleware=[Middleware(_Isolated)])


def serve_folder(folder: Path, port: int, listening: Callable[[str], None]) -> None:
    """Serve a folder on this machine, for this machine, until a signal ends it.

    Args:
        folder: what write_site() wrote.
        port: 0 takes a free one.
        listening: called with the address.

    Raises:
        RequestError: the port is taken, or not this user's to take.
    """
    try:
        listener = socket.create_server((_HOST, port))
    except OSError as error:
        raise RequestError(f"cannot listen at {_HOST}:{port}: {error.strerror or error}") from None
    with listener:
        listening(f"http://{_HOST}:{listener.getsockname()[1]}/")
        uvicorn.Server(uvicorn.Config(isolated_app(folder), log_level="warning")).run(sockets=[listener])
