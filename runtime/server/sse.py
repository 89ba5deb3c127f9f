"""Server-sent events (SSE)."""

import json
from collections.abc import AsyncIterator, Sequence
from typing import Any

from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from ..engine.handle import Handle
from .http_errors import to_http_error

EVENT_STREAM_TYPE = "text/event-stream"
DONE_EVENT = "data: [DONE]\n\n"


def format_event(data: Any, name: str = "") -> str:
    """Format JSON data as an event, with an optional event name."""
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"))
    return f"event: {name}\ndata: {text}\n\n" if name else f"data: {text}\n\n"


class EventStream(StreamingResponse):
    """SSE response that aborts its requests when it ends, also when the client disconnects."""

    def __init__(self, events: AsyncIterator[str], handles: Sequence[Handle], error_name: str = "") -> None:
        """Create the response.

        Args:
            events: formatted events; an exception is sent as the last event.
            handles: requests to abort at the end.
            error_name: event name of an error, if any.
        """
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}  # no buffering in proxies
        super().__init__(_with_error_event(events, error_name), headers=headers, media_type=EVENT_STREAM_TYPE)
        self._handles = handles

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the events."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            for handle in self._handles:
                handle.abort()


async def _with_error_event(events: AsyncIterator[str], name: str) -> AsyncIterator[str]:
    try:
        async for event in events:
            yield event
    except Exception as error:
        yield format_event(to_http_error(error).body, name)
