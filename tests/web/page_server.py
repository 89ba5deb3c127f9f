"""The page's server with scripted answers: `/v1/models` and `/v1/answer` as in server/."""

import asyncio
import re
import threading
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from thirteen.server.api.core import format_event
from thirteen.web.static_files import page_routes


def step(text: str, equation: str, computed: str = "") -> dict[str, Any]:
    """A checked sum of a text, with its right value if it is wrong."""
    start = text.index(equation)
    result = start + equation.index("=") + 2
    return {
        "start": start,
        "result": result,
        "end": start + len(equation),
        "ok": not computed,
        "computed": computed or equation.rpartition("= ")[2],
    }


def answer(text: str, *wrong: tuple[str, str], **fields: Any) -> dict[str, Any]:
    """An answer of the API; its sums are like `1 + 2 = 3`; `wrong` are those with another right value."""
    sums = re.findall(r"\d+(?: [-+*] \d+)+ = \d+", text)
    return {
        "model": "smollm2",
        "text": text,
        "value": None,
        "steps": [step(text, equation, dict(wrong).get(equation, "")) for equation in sums],
        "stop_reason": "end",
        "tally": None,
        "usage": {"completion_tokens": 25},
        "timings": {"decode_tokens_per_s": 100.0, "first_token_s": 0.13},
        "dropped_turns": 0,
        **fields,
    }


@dataclass
class PageServer:
    """Answers from a script; `!` begins the questions that fail or wait.

    Attributes:
        address: where it runs.
        answers: the answer to each question; others are answered "I do not know."
        models: `/v1/models`.
        key: required API key; None requires none.
        requests: bodies received.
        disconnected: set when a client disconnects before the end.
        release: the question "!hold" waits for it before its last word.
    """

    answers: dict[str, dict[str, Any]]
    models: tuple[dict[str, str], ...] = ({"id": "smollm2"}, {"id": "sums-13"})
    key: str | None = None
    requests: list[dict[str, Any]] = field(default_factory=list)
    disconnected: threading.Event = field(default_factory=threading.Event)
    release: threading.Event = field(default_factory=threading.Event)
    address: str = ""

    @property
    def app(self) -> Starlette:
        api = [Route("/v1/models", self._models), Route("/v1/answer", self._answer, methods=["POST"])]
        return Starlette(routes=[*page_routes(), *api])

    async def _models(self, request: Request) -> Response:
        if self.key and request.headers.get("Authorization") != f"Bearer {self.key}":
            return _error(401, "Incorrect API key provided.")
        return JSONResponse({"data": self.models})

    async def _answer(self, request: Request) -> Response:
        self.requests.append(body := await request.json())
        if body["question"] == "!busy":
            return _error(429, "All slots are in use.", **{"Retry-After": "3"})
        return StreamingResponse(self._stream(body["question"]), media_type="text/event-stream")

    async def _stream(self, question: str) -> AsyncIterator[str]:
        """The events of an answer, with a comment as the server sends them while it is silent."""
        found = self.answers.get(question) or answer("I do not know.")
        try:
            yield ": computing\n\n"
            if found["tally"]:
                votes = {"31": 2, "7": 1}
                yield format_event({"asked": 8, "ended": 3, "votes": votes}, "tally")
            for word in re.findall(r"\S+\s*", found.get("thinking", "")):
                yield format_event({"text": word}, "thinking")
            words = [] if found["tally"] else re.findall(r"\S+\s*", found["text"])
            for word in words[:-1]:
                yield format_event({"text": word}, "text")
                await asyncio.sleep(0.002)
            while question == "!hold" and not self.release.is_set():
                await asyncio.sleep(0.01)
            if question == "!fail":
                yield format_event({"error": {"message": "The computation failed."}}, "error")
            elif question != "!break":
                yield format_event({"text": "".join(words[-1:])}, "text")
                yield format_event(found, "answer")
        except asyncio.CancelledError:
            self.disconnected.set()
            raise


def _error(status: int, message: str, **headers: str) -> Response:
    return JSONResponse({"error": {"message": message}}, status, headers)
