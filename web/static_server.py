"""Local server for a static site, with the headers that WebAssembly threads require."""

import socket
from collections.abc import Callable
from pathlib import Path

import uvicorn
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.responses import Response
from starlette.routing import Mount
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

from ..errors import RequestError
from .static_files import HEADERS

_HOST = "127.0.0.1"
_NAMES = [_HOST, "localhost"]  # a foreign page whose own name leads here (DNS rebinding) reads nothing
_HEADERS = HEADERS | {"Cross-Origin-Embedder-Policy": "require-corp"}


class _IsolatedFiles(StaticFiles):
    """Files with the headers of cross-origin isolation."""

    async def get_response(self, path: str, scope: Scope) -> Response:
        response = await super().get_response(path, scope)
        response.headers.update(_HEADERS)
        return response


def isolated_app(folder: Path) -> Starlette:
    """Application that serves a folder to this machine, cross-origin isolated."""
    files = Mount("/", _IsolatedFiles(directory=folder, html=True))
    trusted = Middleware(TrustedHostMiddleware, allowed_hosts=_NAMES)
    return Starlette(routes=[files], middleware=[trusted])


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
