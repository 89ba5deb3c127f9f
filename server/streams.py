"""Responses that are sent while their answers are generated: server-sent events, and lines of JSON."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping
from time import monotonic
from typing import Any

from starlette.responses import StreamingResponse
from starlette.types import Message, Receive, Scope, Send

from .call import Call
from .http_errors import HttpError, to_http_error

EVENT_STREAM_TYPE = "text/event-stream"
JSON_LINES_TYPE = "application/x-ndjson"
DONE_EVENT = "data: [DONE]\n\n"
COMMENT_S = 10.0  # clients and proxies end a connection on which nothing comes, some after 15 s
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
    """Streamed response that aborts its answers when it ends, also when the client disconnects."""

    def __init__(
        self, parts: AsyncIterator[str], media_type: str, format_error: Callable[[HttpError], str]
    ) -> None:
        """Create the response; an exception is sent as its last part."""
        super().__init__(self._with_error(parts), headers=_HEADERS, media_type=media_type)
        self._format_error, self._sent_at = format_error, monotonic()

    async def _with_error(self, parts: AsyncIterator[str]) -> AsyncIterator[str]:
        try:
            async for part in parts:
                yield part
        except Exception as error:
            self._call.error = to_http_error(error)
            yield self._format_error(self._call.error)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the parts."""
        self._call = Call.of(scope)
        try:
            await super().__call__(scope, receive, send)
        finally:
            for handle in self._call.handles:
                handle.abort()

    async def stream_response(self, send: Send) -> None:
        """Send the parts, and in a stream of events a comment where none has come for a while."""

        async def send_part(message: Message) -> None:
            if not message.get("more_body", True):
                comments.cancel()
            await send(message)
            self._sent_at = monotonic()

        comments = asyncio.ensure_future(self._send_comments(send_part))
        try:
            await super().stream_response(send_part)
        finally:
            comments.cancel()

    async def _send_comments(self, send: Send) -> None:
        while self.media_type == EVENT_STREAM_TYPE:
            if (silent_s := monotonic() - self._sent_at) < COMMENT_S:
                await asyncio.sleep(COMMENT_S - silent_s)
                continue
            place = min((handle.place for handle in self._call.handles), default=0)
            comment = f": place {place} in the queue\n\n" if place else ": computing\n\n"
            await send({"type": "http.response.body", "body": comment.encode(), "more_body": True})


def event_stream(events: AsyncIterator[str], error_name: str = "") -> AnswerStream:
    """Stream of formatted events; `error_name` is the event name of an error, if any."""
    return AnswerStream(events, EVENT_STREAM_TYPE, lambda error: format_event(error.body, error_name))


def json_lines_stream(lines: AsyncIterator[str]) -> AnswerStream:
    """Stream of formatted lines; an error is the last of them."""
    return AnswerStream(lines, JSON_LINES_TYPE, lambda error: format_line({"error": error.message}))
