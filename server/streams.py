"""Responses that are sent while their answers are generated: server-sent events, and lines of JSON."""

import json
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any

from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from ..runtime.engine.handle import Handle
from .http_errors import HttpError, to_http_error

EVENT_STREAM_TYPE = "text/event-stream"
JSON_LINES_TYPE = "application/x-ndjson"
DONE_EVENT = "data: [DONE]\n\n"
_HEADERS = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}  # no buffering in proxies


def format_event(data: Any, name: str = "") -> str:
    """Format JSON data as a server-sent event, with an optional event name."""
    return f"event: {name}\ndata: {_dumps(data)}\n\n" if name else f"data: {_dumps(data)}\n\n"


def format_line(data: Mapping[str, Any]) -> str:
    """Format an object as a line."""
    return f"{_dumps(data)}\n"


def _dumps(data: Any) -> str:
    """JSON in ASCII: clients take other line ends of Unicode for the end of a line."""
    return json.dumps(data, separators=(",", ":"))


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


def event_stream(events: AsyncIterator[str], handles: Sequence[Handle], error_name: str = "") -> AnswerStream:
    """Stream of formatted events; `error_name` is the event name of an error, if any."""
    return AnswerStream(
        events, handles, EVENT_STREAM_TYPE, lambda error: format_event(error.body, error_name)
    )


def json_lines_stream(lines: AsyncIterator[str], handles: Sequence[Handle]) -> AnswerStream:
    """Stream of formatted lines; an error is the last of them."""
    return AnswerStream(lines, handles, JSON_LINES_TYPE, lambda error: format_line({"error": error.message}))


async def _with_error(
    parts: AsyncIterator[str], format_error: Callable[[HttpError], str]
) -> AsyncIterator[str]:
    try:
        async for part in parts:
            yield part
    except Exception as error:
        yield format_error(to_http_error(error))
