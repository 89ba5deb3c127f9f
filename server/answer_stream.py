"""Response that is sent while its answers are generated."""

from collections.abc import AsyncIterator, Callable, Sequence

from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from ..runtime.engine.handle import Handle
from .http_errors import HttpError, to_http_error

_HEADERS = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}  # no buffering in proxies


class AnswerStream(StreamingResponse):
    """Streamed response that aborts its requests when it ends, also when the client disconnects."""

    def __init__(
        self,
        parts: AsyncIterator[str],
        handles: Sequence[Handle],
        media_type: str,
        format_error: Callable[[HttpError], str],
    ) -> None:
        """Create the response.

        Args:
            parts: the response's text; an exception is sent as the last part.
            handles: requests to abort at the end.
            media_type: type of the response.
            format_error: formats an error as a part.
        """
        content = _with_error(parts, format_error)
        super().__init__(content, headers=_HEADERS, media_type=media_type)
        self._handles = handles

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the parts."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            for handle in self._handles:
                handle.abort()


async def _with_error(
    parts: AsyncIterator[str], format_error: Callable[[HttpError], str]
) -> AsyncIterator[str]:
    try:
        async for part in parts:
            yield part
    except Exception as error:
        yield format_error(to_http_error(error))
