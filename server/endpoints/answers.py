"""Endpoints of the project's own API: answers with checked equations, and claims."""

from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from anyio import to_thread
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from ...runtime.engine.conversation import Conversation
from ...runtime.engine.engine import RequestOptions
from ...runtime.engine.handle import Handle
from ...runtime.engine.majority_vote import MajorityVote, vote_requests
from ...runtime.request import Request as EngineRequest
from ..access.fair_turns import FairTurns
from ..api.answer_api import AnswerFormatter, check_claim
from ..api.operations import ANSWER_OPERATIONS
from ..api.request_models import AnswerRequest, CheckRequest
from ..engine_service import collect_answers, collect_vote, ensure_completed, stream_pieces
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
        body = await self._read_body(request, AnswerRequest, strict=True)
        service, name, adapter = await self._model(request, body.model)
        options = RequestOptions(
            system=body.system,
            max_tokens=body.max_tokens,
            calculator=body.calculator,
            sampling=body.new_sampling(),
            adapter=adapter,
            namespace=client_of(request).namespace,
        )
        engine = service.engine
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
        vote = MajorityVote(handles) if body.votes > 1 else None
        if body.stream:
            events = _vote_events(formatter, vote) if vote else _answer_events(formatter, handles[0])
            return event_stream(events, handles, "error")
        if vote:
            return JSONResponse(formatter.response(await collect_vote(request, vote)))
        await collect_answers(request, handles)
        return JSONResponse(formatter.response(handles[0].answer()))

    async def check(self, request: Request) -> Response:
        """POST /v1/check."""
        body = await self._read_body(request, CheckRequest, strict=True)
        async with self.checks.turn(client_of(request).name, request.state.body_bytes):
            result = await to_thread.run_sync(check_claim, body.claim)
        return JSONResponse(result)


async def _answer_events(formatter: AnswerFormatter, handle: Handle) -> AsyncIterator[str]:
    async for name, data in formatter.events(stream_pieces(handle)):
        yield format_event(data, name)


async def _vote_events(formatter: AnswerFormatter, vote: MajorityVote) -> AsyncIterator[str]:
    """The only event of a stream with votes: the winning answer."""
    yield format_event(formatter.response(ensure_completed(await vote)), "answer")
