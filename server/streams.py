"""Responses that are sent while their answers are generated: server-sent events, and lines of JSON."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

from starlette.responses import StreamingResponse

from .engine_service import Call
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


def stream_response(
    call: Call, parts: AsyncIterator[str], media_type: str, format_error: Callable[[HttpError], str]
) -> StreamingResponse:
    """Response in parts; an exception is its last one. A stream of events has a comment where none comes."""

    async def send() -> AsyncIterator[str]:
        timeout = COMMENT_S if media_type == EVENT_STREAM_TYPE else None
        part: asyncio.Future[str | None] = asyncio.Future()
        try:
            while True:
                part = asyncio.ensure_future(anext(parts, None))
                while not (await asyncio.wait((part,), timeout=timeout))[0]:
                    place = min((handle.place for handle in call.handles), default=0)
                    yield f": place {place} in the queue\n\n" if place else ": computing\n\n"
                if (text := part.result()) is None:
                    return
                yield text
        except Exception as error:
            call.error = to_http_error(error)
            yield format_error(call.error)
        finally:
            part.cancel()

    return StreamingResponse(send(), headers=_HEADERS, media_type=media_type)
