"""Endpoints of the project's own API: answers with checked equations, and claims."""

from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from anyio import to_thread
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from ...runtime.answer import Answer
from ...runtime.engine.conversation import Conversation
from ...runtime.engine.engine import RequestOptions
from ...runtime.engine.handle import Handle
from ...runtime.engine.majority_vote import MajorityVote, vote_requests
from ...runtime.prompt.prompt_encoder import Message
from ...runtime.request import Request as EngineRequest
from ..api.answer_api import AnswerFormatter, check_claim
from ..api.operations import ANSWER_OPERATIONS
from ..api.request_models import AnswerRequest, CheckRequest
from ..engine_service import Prompt, collect_answers, collect_vote, ensure_completed, stream_pieces
from ..fair_turns import FairTurns
from ..streams import event_stream, format_event
from .endpoints import Endpoints, client_of


@dataclass
class AnswerEndpoints(Endpoints):
    """/v1/answer and /v1/check.

    Attributes:
        checks: turns at checking arithmetic.
    """

    checks: FairTurns = field(default_factory=FairTurns)
    operations = ANSWER_OPERATIONS

    async def answer(self, request: Request) -> Response:
        """POST /v1/answer."""
        body = await self._read_body(request, AnswerRequest)
        name, adapter = self.service.resolve_model(body.model)
        options = RequestOptions(
            system=body.system,
            max_tokens=body.max_tokens,
            calculator=body.calculator,
            adapter=adapter,
            namespace=client_of(request).namespace,
        )
        engine = self.service.engine
        conversation = Conversation(engine, body.system)
        for turn in body.turns:
            conversation.add(turn.question, turn.answer)

        def prepare() -> list[EngineRequest]:
            if body.turns:
                asked = conversation.next_turn(body.question, **options).request
            else:
                asked = engine.request(body.question, **options)
            return vote_requests(asked, body.votes) if body.votes > 1 else [asked]

        handles = await self._submit(request, body.votes, prepare)
        formatter = AnswerFormatter(name, len(body.turns) - len(conversation.messages) // 2)
        system = [Message("system", body.system)] if body.system else []
        asked = [*system, *conversation.messages, Message("user", body.question)]
        if body.votes > 1:
            vote = MajorityVote(handles)
            if body.stream:
                return event_stream(self._vote_events(asked, formatter, vote), handles, "error")
            return self._answer_response(asked, formatter, await collect_vote(request, vote))
        if body.stream:
            return event_stream(self._answer_events(asked, formatter, handles[0]), handles, "error")
        await collect_answers(request, handles)
        return self._answer_response(asked, formatter, handles[0].answer())

    async def check(self, request: Request) -> Response:
        """POST /v1/check."""
        body = await self._read_body(request, CheckRequest)
        async with self.checks.turn(client_of(request).name, request.state.body_bytes):
            result = await to_thread.run_sync(check_claim, body.claim)
        return JSONResponse(result)

    def _answer_response(self, asked: Prompt, formatter: AnswerFormatter, answer: Answer) -> Response:
        self.service.log_answers(asked, [answer])
        return JSONResponse(formatter.response(answer))

    async def _answer_events(
        self, asked: Prompt, formatter: AnswerFormatter, handle: Handle
    ) -> AsyncIterator[str]:
        async for name, data in formatter.events(stream_pieces(handle)):
            yield format_event(data, name)
        self.service.log_answers(asked, [handle.answer()])

    async def _vote_events(
        self, asked: Prompt, formatter: AnswerFormatter, vote: MajorityVote
    ) -> AsyncIterator[str]:
        """The only event of a stream with votes: the winning answer."""
        answer = ensure_completed(await vote)
        yield format_event(formatter.response(answer), "answer")
        self.service.log_answers(asked, [answer])
