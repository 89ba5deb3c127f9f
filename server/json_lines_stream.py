"""Streams of JSON objects, one a line."""

import json
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

from ..runtime.engine.handle import Handle
from .answer_stream import AnswerStream

JSON_LINES_TYPE = "application/x-ndjson"


def format_line(data: Mapping[str, Any]) -> str:
    """Format an object as a line."""
    return f"{json.dumps(data, ensure_ascii=False, separators=(',', ':'))}\n"


class JsonLinesStream(AnswerStream):
    """Stream of lines; an error is the last of them."""

    def __init__(self, lines: AsyncIterator[str], handles: Sequence[Handle]) -> None:
        """Create the response.

        Args:
            lines: formatted lines.
            handles: requests to abort at the end.
        """
        super().__init__(lines, handles, JSON_LINES_TYPE, lambda error: format_line(error.short_body))
