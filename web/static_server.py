"""Local server for a static site, with the headers that WebAssembly threads require."""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import uvicorn
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ..errors import RequestError

_HOST = "127.0.0.1"
_NAMES = [_HOST, "localhost"]  # a foreign page whose own name leads here (DNS rebinding) reads nothing
_HEADERS = {
    b"cross-origin-opener-policy": b"same-origin",
    b"cross-origin-embedder-policy": b"require-corp",
    b"cross-origin-resource-policy": b"same-origin",
    b"x-content-type-options": b"nosniff",
    b"referrer-policy": b"no-referrer",
    b"cache-control": b"no-cache",
}


class _IsolationMiddleware:
    """Adds cross-origin isolation headers to every response."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], *_HEADERS.items()]
            await send(message)

        await self._app(scope, receive, send_with_headers)


def isolated_app(folder: Path, *routes: Route) -> Starlette:
    """Application that serves a folder, and other routes, to this machine, cross-origin isolated."""
    files = Mount("/", StaticFiles(directory=folder, html=True))
    trusted = Middleware(TrustedHostMiddleware, allowed_hosts=_NAMES)
    return Starlette(routes=[*routes, files], middleware=[Middleware(_IsolationMiddleware), trusted])


def serve_folder(folder: Path, port: int, on_listening: Callable[[str], None]) -> None:
    """Serve a folder on the loopback address until a signal arrives.

    Args:
        folder: a folder from write_site().
        port: TCP port; 0 picks a free one.
        on_listening: called with the URL.

    Raises:
        RequestError: the port is in use or not permitted.
    """
    try:
        listener = socket.create_server((_HOST, port))
    except OSError as error:
        raise RequestError(f"cannot listen on {_HOST}:{port}: {error.strerror or error}") from None
    with listener:
        on_listening(f"http://{_HOST}:{listener.getsockname()[1]}/")
        uvicorn.Server(uvicorn.Config(isolated_app(folder), log_level="warning")).run(sockets=[listener])


@contextmanager
def background_server(app: ASGIApp) -> Iterator[str]:
    """Serve an application on a free port of the loopback address while the block runs; yields the URL."""
    with socket.create_server((_HOST, 0)) as listener:
        server = uvicorn.Server(uvicorn.Config(app, log_level="error", timeout_graceful_shutdown=1))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        try:
            while not server.started:
                time.sleep(0.01)
            yield f"http://{_HOST}:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()
