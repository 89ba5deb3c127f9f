"""Routes of the web page at `/`: the files of the folder `page`, with security headers."""

from collections.abc import Awaitable, Callable
from hashlib import sha256
from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

_FOLDER = Path(__file__).with_name("page")
_INDEX = "index.html"
_MEDIA_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
PAGE_FILES = tuple(sorted(file for file in _FOLDER.iterdir() if file.suffix in _MEDIA_TYPES))

# Only same-origin files, no inline code, no frames: defence in depth in case model output became markup.
_CONTENT_SECURITY_POLICY = {
    "default-src": "'none'",
    "script-src": "'self'",
    "style-src": "'self'",
    "connect-src": "'self'",
    "img-src": "'self'",
    "base-uri": "'none'",
    "form-action": "'none'",
    "frame-ancestors": "'none'",
}
_HEADERS = {
    "Content-Security-Policy": "; ".join(
        f"{directive} {source}" for directive, source in _CONTENT_SECURITY_POLICY.items()
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-cache",  # browsers cache the file and revalidate its ETag on each use
}


def page_routes() -> list[Route]:
    """Routes of the page and its files: `/`, `/page.css`, `/page.js` and so on. None needs an API key."""
    return [
        Route("/" if file.name == _INDEX else f"/{file.name}", _file_endpoint(file), include_in_schema=False)
        for file in PAGE_FILES
    ]


def _file_endpoint(file: Path) -> Callable[[Request], Awaitable[Response]]:
    """Endpoint that serves a file from memory, or 304 if the browser's copy is current."""
    content = file.read_bytes()
    etag = f'"{sha256(content).hexdigest()[:32]}"'
    headers = _HEADERS | {"ETag": etag}

    async def serve_file(request: Request) -> Response:
        if etag in request.headers.get("If-None-Match", ""):
            return Response(status_code=304, headers=headers)
        return Response(content, headers=headers, media_type=_MEDIA_TYPES[file.suffix])

    return serve_file
