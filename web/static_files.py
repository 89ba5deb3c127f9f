"""Static files with security headers: the page of the server, and a local server for a static site.

KaTeX and markdown-it, in folders of `page`, are those of the npm packages, unmodified; `SHA256SUMS` in each
has version and hashes.
"""

import mimetypes
from pathlib import Path

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

PAGE = Path(__file__).with_name("page")
_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Embedder-Policy": "require-corp",  # with this, WebAssembly has threads
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-cache",  # browsers cache the file and revalidate its ETag on each use
}
# Besides the policy in `index.html`: no blobs as scripts, no frames, and no way to make markup from strings.
_POLICY = (
    "script-src 'self'; frame-ancestors 'none'; trusted-types 'none'; require-trusted-types-for 'script'"
)
mimetypes.add_type("text/javascript", ".js")  # some Windows registries have text/plain, which browsers refuse


class _Files(StaticFiles):
    async def get_response(self, path: str, scope: Scope) -> Response:
        response = await super().get_response(path, scope)
        response.headers.update(_HEADERS)
        return response


def page_routes() -> list[BaseRoute]:
    """Routes of the page: `/`, and its files under `/page`. None needs an API key."""
    files = _Files(directory=PAGE)

    async def index(request: Request) -> Response:
        response = await files.get_response("index.html", request.scope)
        response.headers["Content-Security-Policy"] = _POLICY
        return response

    return [Route("/", index, include_in_schema=False), Mount("/page", files)]


def site_app(folder: Path) -> Starlette:
    """Application that serves a static site under names of this machine only, against DNS rebinding."""
    trusted = Middleware(TrustedHostMiddleware, allowed_hosts=["127.0.0.1", "localhost"])
    return Starlette(routes=[Mount("/", _Files(directory=folder, html=True))], middleware=[trusted])
