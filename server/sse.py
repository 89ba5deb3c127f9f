"""Server-sent events (SSE)."""

import json
from collections.abc import AsyncIterator, Sequence
from typing import Any

from ..runtime.engine.handle import Handle
from .answer_stream import AnswerStream

EVENT_STREAM_TYPE = "text/event-stream"
DONE_EVENT = "data: [DONE]\n\n"


def format_event(data: Any, name: str = "") -> str:
    """Format JSON data as an event, with an optional event name."""
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"))
    return f"event: {name}\ndata: {text}\n\n" if name else f"data: {text}\n\n"


class EventStream(AnswerStream):
    """Stream of events."""

    def __init__(self, events: AsyncIterator[str], handles: Sequence[Handle], error_name: str = "") -> None:
        """Create the response.

        Args:
            events: formatted events.
            handles: requests to abort at the end.
            error_name: event name of an error, if any.
        """
        super().__init__(
            events, handles, EVENT_STREAM_TYPE, lambda error: format_event(error.body, error_name)
        )
