"""A server that implements the page's part of the API with scripted answers."""

import asyncio
import re
import threading
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from thirteen.runtime.answer import Answer, Piece, VoteTally, read_value
from thirteen.runtime.arithmetic.grounding import is_grounded
from thirteen.runtime.request import StopReason, Timings, Usage
from thirteen.server.api.answer_api import AnswerFormatter
from thirteen.server.streams import format_event
from thirteen.web.static_files import page_routes

USAGE = Usage(prompt_tokens=49, completion_tokens=25, cached_tokens=12, sampled_tokens=22)
TIMINGS = Timings(prefill_s=0.125, first_token_s=0.13, decode_s=0.24)


@dataclass
class Script:
    """Behaviour of the server, and what it has received.

    Attributes:
        answers: answer text of each question.
        models: model names.
        default_effort: effort that the page chooses.
        key: required API key; None requires none.
        delay_s: time between two words.
        requests: bodies received.
        disconnected: set when a client disconnects before the end.
        release: the question "!hold" waits for it before its last word.
    """

    answers: dict[str, str]
    models: tuple[str, ...] = ("smollm2", "gsm8k-13")
    default_effort: str = "low"
    key: str | None = None
    delay_s: float = 0.01
    requests: list[dict[str, Any]] = field(default_factory=list)
    disconnected: threading.Event = field(default_factory=threading.Event)
    release: threading.Event = field(default_factory=threading.Event)


def scripted_answer(question: str, text: str, effort: str) -> Answer:
    """The engine's Answer for this text; of several answers, one is for 7."""
    value, found, verified = read_value(text, question)
    tally = None if effort == "low" else VoteTally(asked=8, ended=5, votes={str(value): 4, "7": 1})
    grounded = verified and is_grounded(found, question)
    answer = Answer(value, text, StopReason.END, USAGE, TIMINGS, found, verified, tally, grounded=grounded)
    thinking = "Is 2 + 2 = 5?\n\nNo." if question == "!think" else ""
    return replace(answer, confidence=0.8 if grounded else 0.7, thinking=thinking)


def error_response(status: int, message: str, **headers: str) -> Response:
    """An error in OpenAI's format."""
    return JSONResponse({"error": {"message": message, "type": "error", "code": None}}, status, headers)


class ScriptedServer:
    """Routes that follow a script. A question that starts with "!" names a failure or a delay."""

    def __init__(self, script: Script) -> None:
        self.script = script
        api_routes = [Route("/v1/models", self.models), Route("/v1/answer", self.answer, methods=["POST"])]
        self.app = Starlette(routes=[*page_routes(), *api_routes])

    def _unauthorized(self, request: Request) -> bool:
        key = self.script.key
        return key is not None and request.headers.get("Authorization") != f"Bearer {key}"

    async def models(self, request: Request) -> Response:
        if self._unauthorized(request):
            return error_response(401, "Incorrect API key provided.")
        effort = {"default_effort": self.script.default_effort}
        return JSONResponse(
            {"object": "list", "data": [{"id": name} | effort for name in self.script.models]}
        )

    async def answer(self, request: Request) -> Response:
        if self._unauthorized(request):
            return error_response(401, "Incorrect API key provided.")
        body = await request.json()
        self.script.requests.append(body)
        if body["question"] == "!busy":
            return error_response(429, "All slots are in use.", **{"Retry-After": "3"})
        return StreamingResponse(self._stream(body), media_type="text/event-stream")

    async def _stream(self, body: dict[str, Any]) -> AsyncIterator[bytes]:
        question, model = body["question"], body.get("model", self.script.models[0])
        answer = scripted_answer(
            question, self.script.answers.get(question, "It is 3 + 4 = 7 ."), body["effort"]
        )
        done = False
        try:
            formatter = AnswerFormatter(model, 1 if question == "!dropped" else 0, question)
            async for name, data in formatter.events(self._pieces(question, answer)):
                for chunk in self._chunks(question, name, data):
                    yield chunk
            done = True
        finally:
            if not done:
                self.script.disconnected.set()

    async def _pieces(self, question: str, answer: Answer) -> AsyncIterator[Piece]:
        """The answer word by word, or two tallies of a vote."""
        pieces = [Piece(word) for word in re.findall(r"\S+\s*", answer.text)]
        if answer.tally:
            pieces = [Piece("", tally=VoteTally(8, 3, {"7": 1, "31": 2})), Piece("", tally=answer.tally)]
        for word in answer.thinking.split(" "):
            yield Piece("", thinking=f"{word} ")
        for count, piece in enumerate(pieces, 1):
            while question == "!hold" and count == len(pieces) and not self.script.release.is_set():
                await asyncio.sleep(0.01)
            yield piece
            await asyncio.sleep(self.script.delay_s)
        yield Piece("", answer=answer)

    def _chunks(self, question: str, name: str, data: dict[str, Any]) -> Iterator[bytes]:
        """Bytes of an event; the last one may fail as the question says."""
        event = format_event(data, name).encode()
        if question == "!fail" and name == "answer":
            yield format_event(
                {"error": {"message": "The computation failed.", "type": "e", "code": None}}, "error"
            ).encode()
        elif question == "!bytes":  # byte by byte, with comments and CRLF, as the standard allows
            yield from (bytes([byte]) for byte in b": keep-alive\r\n\r\n" + event.replace(b"\n", b"\r\n"))
        elif question != "!break" or name != "answer":
            yield event
