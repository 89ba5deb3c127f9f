"""A server that speaks to the page as the real one does, with answers that are written beforehand."""

import asyncio
import re
import socket
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from thirteen.runtime.answer import Answer, VoteTally
from thirteen.runtime.arithmetic.calculator import steps, verified
from thirteen.runtime.arithmetic.final_answer import final_answer, format_number
from thirteen.runtime.engine.handle import Piece
from thirteen.runtime.request import StopReason, Timings, Usage
from thirteen.runtime.server.api.answer_api import answer_events
from thirteen.runtime.server.sse import event
from thirteen.runtime.server.static_files import routes

USAGE = Usage(prompt_tokens=49, completion_tokens=25, cached_tokens=12, sampled_tokens=22)
TIMINGS = Timings(prefill_s=0.125, first_token_s=0.13, decode_s=0.24)


@dataclass
class Script:
    """What the server says, and what it has heard.

    Attributes:
        answers: the text with which a question is answered.
        models: the names it offers.
        key: without which it gives 401; None wants none.
        pace_s: between one word and the next.
        asked: the bodies that came.
        hung_up: set when somebody leaves before the end.
        go_on: for which "!hold" waits before its last word.
    """

    answers: dict[str, str]
    models: tuple[str, ...] = ("smollm2", "gsm8k-13")
    key: str | None = None
    pace_s: float = 0.01
    asked: list[dict[str, Any]] = field(default_factory=list)
    hung_up: threading.Event = field(default_factory=threading.Event)
    go_on: threading.Event = field(default_factory=threading.Event)


def whole(text: str, votes: int) -> Answer:
    """The answer that says this, with the engine's own reading of it; for votes, one of them was for 7."""
    number, found = final_answer(text), steps(text)
    value = None if number is None else format_number(number)
    tally = VoteTally(asked=votes, ended=votes, votes={str(value): votes - 1, "7": 1}) if votes > 1 else None
    sure = verified(found, value)
    return Answer(value, text, StopReason.END, USAGE, TIMINGS, steps=found, verified=sure, tally=tally)


def refused(status: int, message: str, **headers: str) -> Response:
    """An error in OpenAI's shape."""
    return JSONResponse({"error": {"message": message, "type": "error", "code": None}}, status, headers)


class Scripted:
    """The routes over a script. Questions that begin with "!" make it fail in the way they name."""

    def __init__(self, script: Script) -> None:
        self.script = script
        here = [
            Route("/v1/models", self.models),
            Route("/v1/answer", self.answer, methods=["POST"]),
        ]
        self.app = Starlette(routes=[*routes(), *here])

    def _locked(self, request: Request) -> bool:
        key = self.script.key
        return key is not None and request.headers.get("Authorization") != f"Bearer {key}"

    async def models(self, request: Request) -> Response:
        if self._locked(request):
            return refused(401, "Incorrect API key provided.")
        return JSONResponse({"object": "list", "data": [{"id": name} for name in self.script.models]})

    async def answer(self, request: Request) -> Response:
        if self._locked(request):
            return refused(401, "Incorrect API key provided.")
        body = await request.json()
        self.script.asked.append(body)
        if body["question"] == "!busy":
            return refused(429, "All slots are taken.", **{"Retry-After": "3"})
        return StreamingResponse(self._stream(body), media_type="text/event-stream")

    async def _stream(self, body: dict[str, Any]) -> AsyncIterator[bytes]:
        question, model = body["question"], body.get("model", self.script.models[0])
        answer = whole(self.script.answers.get(question, "It is 3 + 4 = 7 ."), body["votes"])
        done = False
        try:
            async for name, data in answer_events(self._pieces(question, answer), model):
                for sent in self._sent(question, name, data):
                    yield sent
            done = True
        finally:
            if not done:
                self.script.hung_up.set()

    async def _pieces(self, question: str, answer: Answer) -> AsyncIterator[Piece]:
        """Word by word; of a vote nothing but the end."""
        words = re.findall(r"\S+\s*", answer.text) if answer.tally is None else []
        for place, word in enumerate(words, 1):
            while question == "!hold" and place == len(words) and not self.script.go_on.is_set():
                await asyncio.sleep(0.01)
            yield Piece(word)
            await asyncio.sleep(self.script.pace_s)
        yield Piece("", answer=answer)

    def _sent(self, question: str, name: str, data: dict[str, Any]) -> Iterator[bytes]:
        """An event on the wire, in pieces; instead of the last one, what a question wants to go wrong."""
        said = event(data, name).encode()
        if question == "!fail" and name == "answer":
            yield event(
                {"error": {"message": "The computation failed.", "type": "e", "code": None}}, "error"
            ).encode()
        elif question == "!crumbs":  # as awkwardly as the standard allows
            yield from (bytes([byte]) for byte in b": still here\r\n\r\n" + said.replace(b"\n", b"\r\n"))
        elif question != "!break" or name != "answer":
            yield said


@contextmanager
def served(app: Any) -> Iterator[str]:
    """The address at which an app is served meanwhile, on a port that was free."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=1))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            while not server.started:
                time.sleep(0.01)
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()
