"""Routes of the web page at `/`: the files of the folder `page`, with security headers.

KaTeX and markdown-it, in folders of `page`, are part of the repository: `pip install` needs no npm, and the
page no other server. Their files are those of the npm packages, unmodified; `SHA256SUMS` in each folder
records version and hashes.
"""

from collections.abc import Awaitable, Callable
from hashlib import sha256
from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

_FOLDER = Path(__file__).with_name("page")
_INDEX = "index.html"
_MEDIA_TYPES = {
    "": "text/plain; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".woff2": "font/woff2",
}
PAGE_FILES = {
    file.relative_to(_FOLDER).as_posix(): file for file in sorted(_FOLDER.rglob("*")) if file.is_file()
}

# Only same-origin files, and no inline code or styles: defence in depth in case model output became markup.
_CONTENT_SECURITY_POLICY = {
    "default-src": "'none'",
    "script-src": "'self'",
    "style-src": "'self'",
    "connect-src": "'self'",
    "font-src": "'self'",
    "img-src": "'self'",
    "base-uri": "'none'",
    "form-action": "'none'",
}


def policy_text(directives: dict[str, str]) -> str:
    """A content security policy with these directives, besides or instead of the usual ones."""
    policy = _CONTENT_SECURITY_POLICY | directives
    return "; ".join(f"{directive} {source}" for directive, source in policy.items())


# No frames either, and no way to make markup from strings.
_STRICT = {"frame-ancestors": "'none'", "require-trusted-types-for": "'script'", "trusted-types": "'none'"}
HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-cache",  # browsers cache the file and revalidate its ETag on each use
}


def page_routes() -> list[Route]:
    """Routes of the page and its files: `/`, `/page.css`, `/page.js` and so on. None needs an API key."""
    return [
        Route("/" if path == _INDEX else f"/{path}", _file_endpoint(file), include_in_schema=False)
        for path, file in PAGE_FILES.items()
    ]


def _file_endpoint(file: Path) -> Callable[[Request], Awaitable[Response]]:
    """Endpoint that serves a file from memory, or 304 if the browser's copy is current."""
    content = file.read_bytes()
    etag = f'"{sha256(content).hexdigest()[:32]}"'
    headers = HEADERS | {"Content-Security-Policy": policy_text(_STRICT), "ETag": etag}

    async def serve_file(request: Request) -> Response:
        if etag in request.headers.get("If-None-Match", ""):
            return Response(status_code=304, headers=headers)
        return Response(content, headers=headers, media_type=_MEDIA_TYPES[file.suffix])

    return serve_file
