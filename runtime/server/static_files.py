"""The page at `/`: the files of the folder `page`, and the headers under which a browser shows them."""

from collections.abc import Awaitable, Callable
from hashlib import sha256
from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

_FOLDER = Path(__file__).with_name("page")
_INDEX = "index.html"
_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
FILES = tuple(sorted(file for file in _FOLDER.iterdir() if file.suffix in _TYPES))

# Nothing from elsewhere, nothing inline, no frames: even if a text became markup, it could do nothing.
_POLICY = {
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
    "Content-Security-Policy": "; ".join(f"{kind} {source}" for kind, source in _POLICY.items()),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-cache",  # kept, but its ETag is asked for each time: there may be a new version
}


def routes() -> list[Route]:
    """The routes of the page and of all that it loads: `/`, `/page.css`, `/page.js`, … None needs a key."""
    return [
        Route("/" if file.name == _INDEX else f"/{file.name}", _sender(file), include_in_schema=False)
        for file in FILES
    ]


def _sender(file: Path) -> Callable[[Request], Awaitable[Response]]:
    """The endpoint that sends a file, read once, or 304 to a browser that has it."""
    content = file.read_bytes()
    tag = f'"{sha256(content).hexdigest()[:32]}"'
    headers = _HEADERS | {"ETag": tag}

    async def send(request: Request) -> Response:
        if tag in request.headers.get("If-None-Match", ""):
            return Response(status_code=304, headers=headers)
        return Response(content, headers=headers, media_type=_TYPES[file.suffix])

    return send
