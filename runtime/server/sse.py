"""Server-sent events: answers as they come."""

import json
from collections.abc import AsyncIterator, Sequence
from typing import Any

from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from ..engine.handle import Handle
from .http_errors import http_error

EVENTS_TYPE = "text/event-stream"
DONE = "data: [DONE]\n\n"


def event(data: Any, name: str = "") -> str:
    """An event with some JSON, under a name if there is one."""
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"))
    return f"event: {name}\ndata: {text}\n\n" if name else f"data: {text}\n\n"


class EventStream(StreamingResponse):
    """A response that sends events; however it ends, the answers that it tells of end with it."""

    def __init__(self, events: AsyncIterator[str], handles: Sequence[Handle], error: str = "") -> None:
        """Prepare to send.

        Args:
            events: each as event() gives it; a failure becomes one more, and the last.
            handles: of the answers.
            error: the name of the event of a failure, if that has one.
        """
        # A proxy in between is not to hold events back.
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        super().__init__(_with_failure(events, error), headers=headers, media_type=EVENTS_TYPE)
        self._handles = handles

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the events."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            for handle in self._handles:
                handle.abort()


async def _with_failure(events: AsyncIterator[str], name: str) -> AsyncIterator[str]:
    try:
        async for told in events:
            yield told
    except Exception as failure:
        yield event(http_error(failure).body, name)
