"""The page's server with scripted answers: `/v1/models` and `/v1/answer` as in server/."""

import asyncio
import re
from dataclasses import asdict, dataclass, field
from threading import Event
from typing import Any

from starlette.applications import Starlette
from starlette.responses import JSONResponse, StreamingResponse
from starlette.routing import Route
from thirteen.runtime.answer import read_value
from thirteen.server.api.core import format_event
from thirteen.web.static_files import page_routes


def answer(text: str, **fields: Any) -> dict[str, Any]:
    """An answer of the API, with the value and the sums that are read in its text."""
    value, reading = read_value(text)
    return {
        "model": "smollm2",
        "text": text,
        "thinking": "",
        "value": value,
        "steps": [asdict(step) for step in reading.steps],
        "stop_reason": "end",
        "tally": None,
        "usage": {"completion_tokens": 25},
        "timings": {"decode_tokens_per_s": 100.0, "first_token_s": 0.13},
        "dropped_turns": 0,
        **fields,
    }


@dataclass
class PageServer:
    """Answers from a script.

    Attributes:
        address: where it runs.
        answers: the answer to each question; others are answered "I do not know."
        requests: bodies received.
        disconnected: set when a client disconnects before the end.
        release: the question "!hold" waits for it before its last word.
    """

    answers: dict[str, dict[str, Any]]
    requests: list[dict[str, Any]] = field(default_factory=list)
    disconnected: Event = field(default_factory=Event)
    release: Event = field(default_factory=Event)
    address: str = ""

    @property
    def app(self) -> Starlette:
        api = [Route("/v1/models", self._models), Route("/v1/answer", self._answer, methods=["POST"])]
        return Starlette(routes=[*page_routes(), *api])

    async def _models(self, _: Any) -> Any:
        models = [{"id": "smollm2"}, {"id": "sums-13"}, {"id": "bert", "capabilities": ["embedding"]}]
        return JSONResponse({"data": models})

    async def _answer(self, request: Any) -> Any:
        self.requests.append(body := await request.json())
        return StreamingResponse(self._stream(body["question"]), media_type="text/event-stream")

    async def _stream(self, question: str) -> Any:
        """The events of an answer, with a comment as the server sends them while it is silent."""
        found = self.answers.get(question) or answer("I do not know.")
        *words, last = re.findall(r"\S+\s*", found["text"])
        try:
            yield ": computing\n\n"
            if found["tally"]:
                yield format_event({"asked": 8, "ended": 3, "votes": {"31": 2, "7": 1}}, "tally")
            yield format_event({"text": found["thinking"]}, "thinking")
            for word in words:
                yield format_event({"text": word}, "text")
                await asyncio.sleep(0.002)
            while question == "!hold" and not self.release.is_set():
                await asyncio.sleep(0.01)
            yield format_event({"text": last}, "text")
            yield format_event(found, "answer")
        except asyncio.CancelledError:
            self.disconnected.set()
            raise
