"""Endpoints of the project's own API: answers with checked equations, and claims."""

from dataclasses import dataclass, field

from anyio import to_thread
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from ...runtime.engine.conversation import Conversation
from ...runtime.engine.engine import RequestOptions
from ...runtime.request import Request as EngineRequest
from ..access.fair_turns import FairTurns
from ..api.answer_api import AnswerFormatter, check_claim
from ..api.operations import ANSWER_OPERATIONS
from ..api.request_models import AnswerRequest, CheckRequest
from ..engine_service import collect_answers, stream_pieces
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
        engine, client = service.engine, client_of(request)
        effort = self._effort(body.effort, engine, "effort")
        options = RequestOptions(
            system=body.system,
            max_tokens=body.max_tokens or min(engine.default_max_tokens, self.limits.max_tokens),
            calculator=body.calculator,
            sampling=body.new_sampling(),
            adapter=adapter,
            namespace=client.namespace,
            turn=client.name,
            effort=effort,
            think=body.effort.think,
            think_budget=body.think_budget,
            min_confidence=body.min_confidence,
        )
        conversation = Conversation(engine, body.system)
        for turn in body.turns:
            conversation.add(turn.question, turn.answer)

        requests = list[EngineRequest]()

        def prepare() -> list[EngineRequest]:
            if body.turns:
                requests.append(conversation.next_turn(body.question, **options).request)
            else:
                requests.append(engine.request(body.question, **options))
            return requests

        (handle,) = handles = await self._submit(request, effort.rule.width, prepare)
        dropped = len(body.turns) - len(conversation.messages) // 2
        formatter = AnswerFormatter(name, dropped, requests[0].question)
        if body.stream:
            events = formatter.events(stream_pieces(handle))
            return event_stream((format_event(data, kind) async for kind, data in events), handles, "error")
        await collect_answers(request, handles)
        return JSONResponse(formatter.response(handle.answer()))

    async def check(self, request: Request) -> Response:
        """POST /v1/check."""
        body = await self._read_body(request, CheckRequest, strict=True)
        async with self.checks.turn(client_of(request).name, request.state.body_bytes):
            result = await to_thread.run_sync(check_claim, body.claim)
        return JSONResponse(result)
