"""Endpoints of the project's own API: answers with checked equations, and claims."""

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from functools import partial

from anyio import to_thread
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from ...answer import Answer
from ...engine.engine import RequestOptions
from ...engine.handle import Handle
from ...engine.majority_vote import MajorityVote, vote_requests
from ..api import answer_api
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
        ask = partial(self.service.engine.request, body.question, **options)
        if body.votes > 1:
            handles = await self._submit(request, body.votes, lambda: vote_requests(ask(), body.votes))
            return await self._vote_response(request, body, name, MajorityVote(handles))
        handles = await self._submit(request, 1, lambda: [ask()])
        if body.stream:
            return EventStream(self._answer_events(body, handles[0], name), handles, "error")
        await collect_answers(request, handles)
        return self._answer_response(body, handles[0].answer(), name)

    async def check(self, request: Request) -> Response:
        """POST /v1/check."""
        body = await self._read_body(request, CheckRequest)
        async with self.checks.turn(client_of(request).name, request.state.body_bytes):
            result = await to_thread.run_sync(answer_api.check_claim, body.claim)
        return JSONResponse(result)

    async def _vote_response(
        self, request: Request, body: AnswerRequest, model: str, vote: MajorityVote
    ) -> Response:
        """Response of /v1/answer by majority vote; a stream has one event, the winning answer."""
        if body.stream:
            return EventStream(self._vote_events(body, vote, model), vote.handles, "error")
        return self._answer_response(body, await collect_vote(request, vote), model)

    def _answer_response(self, body: AnswerRequest, answer: Answer, model: str) -> Response:
        self.service.log_answers(body.question, [answer])
        return JSONResponse(answer_api.answer_json(model, answer))

    async def _answer_events(self, body: AnswerRequest, handle: Handle, model: str) -> AsyncIterator[str]:
        async for name, data in answer_api.answer_events(stream_pieces(handle), model):
            yield format_event(data, name)
        self.service.log_answers(body.question, [handle.answer()])

    async def _vote_events(self, body: AnswerRequest, vote: MajorityVote, model: str) -> AsyncIterator[str]:
        answer = ensure_completed(await vote)
        yield format_event(answer_api.answer_json(model, answer), "answer")
        self.service.log_answers(body.question, [answer])
