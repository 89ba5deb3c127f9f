"""Endpoints of the project's own API: answers with checked equations, and claims."""

from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from anyio import to_thread
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from ...answer import Answer
from ...engine.conversation import Conversation
from ...engine.engine import RequestOptions
from ...engine.handle import Handle
from ...engine.majority_vote import MajorityVote, vote_requests
from ...request import Request as EngineRequest
from ..api.answer_api import AnswerFormatter, check_claim
from ..api.operations import ANSWER_OPERATIONS
from ..api.request_models import AnswerRequest, CheckRequest
from ..engine_service import collect_answers, collect_vote, ensure_completed, stream_pieces
from ..fair_turns import FairTurns
from ..sse import EventStream, format_event
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
        if body.votes > 1:
            return await self._vote_response(request, body, formatter, MajorityVote(handles))
        if body.stream:
            return EventStream(self._answer_events(body, formatter, handles[0]), handles, "error")
        await collect_answers(request, handles)
        return self._answer_response(body, formatter, handles[0].answer())

    async def check(self, request: Request) -> Response:
        """POST /v1/check."""
        body = await self._read_body(request, CheckRequest)
        async with self.checks.turn(client_of(request).name, request.state.body_bytes):
            result = await to_thread.run_sync(check_claim, body.claim)
        return JSONResponse(result)

    async def _vote_response(
        self, request: Request, body: AnswerRequest, formatter: AnswerFormatter, vote: MajorityVote
    ) -> Response:
        """Response of /v1/answer by majority vote; a stream has one event, the winning answer."""
        if body.stream:
            return EventStream(self._vote_events(body, formatter, vote), vote.handles, "error")
        return self._answer_response(body, formatter, await collect_vote(request, vote))

    def _answer_response(self, body: AnswerRequest, formatter: AnswerFormatter, answer: Answer) -> Response:
        self.service.log_answers(body.question, [answer])
        return JSONResponse(formatter.response(answer))

    async def _answer_events(
        self, body: AnswerRequest, formatter: AnswerFormatter, handle: Handle
    ) -> AsyncIterator[str]:
        async for name, data in formatter.events(stream_pieces(handle)):
            yield format_event(data, name)
        self.service.log_answers(body.question, [handle.answer()])

    async def _vote_events(
        self, body: AnswerRequest, formatter: AnswerFormatter, vote: MajorityVote
    ) -> AsyncIterator[str]:
        answer = ensure_completed(await vote)
        yield format_event(formatter.response(answer), "answer")
        self.service.log_answers(body.question, [answer])
