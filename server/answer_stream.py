"""Response that is sent while its answers are generated."""

from collections.abc import AsyncIterator, Callable, Generator, Sequence
from typing import Any, Protocol

from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from ..runtime.answer import Answer
from ..runtime.engine.handle import Piece
from .http_errors import HttpError, to_http_error

_HEADERS = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}  # no buffering in proxies


class PendingAnswer(Protocol):
    """An answer that is being generated: a Handle, or the rounds of an answer."""

    def abort(self) -> None:
        """End the answer; does nothing if it has ended."""

    def __await__(self) -> Generator[Any, None, Answer]:
        """Wait for the whole answer."""

    def __aiter__(self) -> AsyncIterator[Piece]:
        """Iterate over the pieces as they come; over one piece if the answer is complete."""


class AnswerStream(StreamingResponse):
    """Streamed response that aborts its requests when it ends, also when the client disconnects."""

    def __init__(
        self,
        parts: AsyncIterator[str],
        handles: Sequence[PendingAnswer],
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
