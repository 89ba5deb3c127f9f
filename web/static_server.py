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
from starlette.responses import Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Scope

from ..errors import RequestError

_HOST = "127.0.0.1"
_NAMES = [_HOST, "localhost"]  # a foreign page whose own name leads here (DNS rebinding) reads nothing
_HEADERS = {
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-embedder-policy": "require-corp",
    "cross-origin-resource-policy": "same-origin",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-cache",
}


class _IsolatedFiles(StaticFiles):
    """Files with the headers of cross-origin isolation."""

    async def get_response(self, path: str, scope: Scope) -> Response:
        response = await super().get_response(path, scope)
        response.headers.update(_HEADERS)
        return response


def isolated_app(folder: Path, *routes: Route) -> Starlette:
    """Application that serves a folder, and other routes, to this machine, cross-origin isolated."""
    files = Mount("/", _IsolatedFiles(directory=folder, html=True))
    trusted = Middleware(TrustedHostMiddleware, allowed_hosts=_NAMES)
    return Starlette(routes=[*routes, files], middleware=[trusted])


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
