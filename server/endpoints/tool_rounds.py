"""Answers in rounds: the server runs the calls of the calculator, and the model goes on with the results."""

from collections.abc import AsyncIterator, Generator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from ...runtime.answer import Answer
from ...runtime.engine.handle import Handle, Piece
from ...runtime.prompt.prompt_encoder import Message
from ...runtime.request import Request as EngineRequest
from ...runtime.request import StopReason, Usage
from ..api.openai_api import call_messages
from ..api.openai_formatter import RoundPiece
from ..api.request_models import CALCULATOR
from ..api.tool_calls import ServerCall, ToolUse
from ..engine_service import Client, EngineService, stream_pieces

ROUNDS_MAX = 8


@dataclass(eq=False)
class ToolRounds:
    """An answer in rounds, in place of a Handle; whoever takes it must call abort() at the end.

    Each round is a request to the engine. The last one calls no calculator, or a function of the client too.
    An answer that has used up max_tokens, which are those of all rounds, or ROUNDS_MAX is cut short.

    The usage has the completion tokens of all rounds, and the prompt and cached tokens of the first: later
    prompts are that one with what the model wrote and the results.

    Attributes:
        handle: the running round.
        request: request of the first round.
        messages: the conversation.
        tools: what the first round may call; the others need not call anything.
        service: submits the other rounds.
        client: who asks.
        size: bytes of the request body.
    """

    handle: Handle
    request: EngineRequest
    messages: list[Message]
    tools: ToolUse
    service: EngineService
    client: Client
    size: int
    _text: str = field(default="", init=False)  # of the rounds so far
    _usage: Usage | None = field(default=None, init=False)
    _calls: list[ServerCall] = field(default_factory=list, init=False)
    _whole: RoundPiece | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        self.service.begin_rounds(self)

    def abort(self) -> None:
        """End the answer; does nothing if it has ended."""
        self.service.end_rounds(self)
        self.handle.abort()

    def __await__(self) -> Generator[Any, None, Answer]:
        return self._collect().__await__()

    async def __aiter__(self) -> AsyncIterator[Piece]:
        if self._whole:
            yield self._whole
            return
        async for piece in self._pieces():
            yield piece

    async def _collect(self) -> Answer:
        pieces = [piece async for piece in self._pieces()]
        (answer,) = (piece.answer for piece in pieces if piece.answer)
        self._whole = RoundPiece(
            answer.text,
            tuple(token for piece in pieces for token in piece.tokens),
            tuple(logprob for piece in pieces for logprob in piece.logprobs),
            answer,
            calls=pieces[-1].calls,
            server_calls=self._calls,
        )
        return answer

    async def _pieces(self) -> AsyncIterator[RoundPiece]:
        for rounds_left in reversed(range(ROUNDS_MAX)):
            said = ""
            async for piece in self._round():
                said += piece.text
                joined = self._join(piece, first=said == piece.text)
                if piece.answer is None:
                    yield joined
            last = self._end_round(joined, rounds_left)
            yield last
            if last.answer:
                return
            self.handle = await self._next_round(call_messages(said, last.server_calls, len(self.messages)))

    async def _round(self) -> AsyncIterator[RoundPiece]:
        """Pieces of the running round; the last one has its answer and all of its calls."""
        parser = self.tools.parser()
        async for piece in stream_pieces(self.handle):
            text = parser.feed(piece.text)
            rest, calls = parser.finish() if piece.answer else ("", [])
            yield RoundPiece(text + rest, piece.tokens, piece.logprobs, piece.answer, calls=calls)

    def _join(self, piece: RoundPiece, *, first: bool) -> RoundPiece:
        """Add a piece to the text; the first of a round, behind earlier ones, begins a line."""
        text = f"\n{piece.text}" if first and piece.text and self._text else piece.text
        self._text += text
        return replace(piece, text=text)

    def _end_round(self, piece: RoundPiece, rounds_left: int) -> RoundPiece:
        """Run the calls of a round's last piece, which keeps an answer, of all rounds, if it is the last."""
        assert piece.answer
        self._usage, reason = _add_usage(self._usage, piece.answer.usage), piece.answer.stop_reason
        ran = [ServerCall.run(call) for call in piece.calls if call.name == CALCULATOR.name]
        calls = [call for call in piece.calls if call.name != CALCULATOR.name]
        answer = None
        if not ran or calls or reason is StopReason.LENGTH or not (rounds_left and self._tokens_left > 0):
            reason = reason if not ran or calls else StopReason.LENGTH
            answer = replace(piece.answer, text=self._text, usage=self._usage, stop_reason=reason)
        before, self._calls = len(self._calls), [*self._calls, *ran]
        return replace(piece, answer=answer, calls=calls, server_calls=ran, calls_before=before)

    @property
    def _tokens_left(self) -> int:
        return self.request.max_tokens - (self._usage.completion_tokens if self._usage else 0)

    async def _next_round(self, messages: Sequence[Message]) -> Handle:
        """Submit the next round, behind the messages of the last."""
        self.messages += messages
        (handle,) = await self.service.submit(self.client, self.size, 1, self._prepare, accepted=True)
        return handle

    def _prepare(self) -> list[EngineRequest]:
        tools = self.tools.optional
        tokens = self.service.engine.conversation(self.messages, tools.template_fields())
        grammar = tools.grammar()
        return [replace(self.request, tokens=tokens, max_tokens=self._tokens_left, grammar=grammar)]


def _add_usage(first: Usage | None, later: Usage) -> Usage:
    """The usage of rounds; see ToolRounds."""
    if first is None:
        return later
    return replace(
        first,
        completion_tokens=first.completion_tokens + later.completion_tokens,
        sampled_tokens=first.sampled_tokens + later.sampled_tokens,
    )
