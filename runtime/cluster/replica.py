"""The replicas of a model that a cluster serves: in each an engine, behind the application of `serve`."""

import asyncio
from collections.abc import AsyncIterator, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ...errors import ModelFileError
from ..engine.engine import Engine
from ..server.api_keys import ApiKeys
from ..server.app import create_app
from ..server.engine_service import EngineService
from ..server.request_limits import RequestLimits
from .ray_session import SharedFiles

ROUTING_KEYS_MAX = 512  # conversations and adapters that a replica is known for

Message = MutableMapping[str, Any]


@dataclass(frozen=True)
class ReplicaConfig:
    """What all replicas are.

    Attributes:
        models: the engine's adapters by the names that clients have for the models; the first is the default.
        engine: the engine's options, but for its files.
        bounds: of requests.
        keys: of those who may ask; None is everyone.
        hosts: the names by which the server may be asked for; None takes any.
        origins: the web origins whose pages may ask.
        log_prompts: whether questions and answers are logged.
    """

    models: Mapping[str, str]
    engine: Mapping[str, Any] = field(default_factory=dict)
    bounds: RequestLimits = field(default_factory=RequestLimits)
    keys: ApiKeys | None = None
    hosts: Sequence[str] | None = None
    origins: Sequence[str] = ()
    log_prompts: bool = False


class Replica:
    """One engine, and the application before it."""

    def __init__(self, fleet: ReplicaConfig, files: SharedFiles, adapters: Sequence[str]) -> None:
        """Fetch the files if need be, and load the engine.

        Args:
            fleet: what it is.
            files: the model, and its adapters.
            adapters: their names, in the order of the files.

        Raises:
            ThirteenError: a file cannot be had, or not be run.
        """
        from ray import serve  # noqa: PLC0415 - a replica runs where Ray is

        model, *loras = files.unpack()
        self._engine = Engine(model, adapters=dict(zip(adapters, loras, strict=True)), **fleet.engine)
        self._desk = EngineService(self._engine, fleet.models, log_prompts=fleet.log_prompts)
        bounds = fleet.bounds.for_context(self._engine.context)
        self._application = create_app(
            self._desk, bounds, keys=fleet.keys, allowed_hosts=fleet.hosts, origins=fleet.origins
        )
        self._known_for = serve.multiplexed(max_num_models_per_replica=ROUTING_KEYS_MAX)(_same)

    async def respond(
        self, scope: dict[str, Any], body: bytes, warm: Sequence[str]
    ) -> AsyncIterator[list[Message]]:
        """The application's response to a request.

        Args:
            scope: ASGI's description of it.
            body: all of its body.
            warm: what this replica has warm once it has answered.

        Yields:
            ASGI's messages as they come, those together that are there.
        """
        for key in warm:
            await self._known_for(key)
        messages: asyncio.Queue[Message | None] = asyncio.Queue()
        gone = asyncio.Event()
        parts = [{"type": "http.request", "body": body, "more_body": False}]

        async def receive() -> Message:
            if parts:
                return parts.pop()
            await gone.wait()
            return {"type": "http.disconnect"}

        async def work() -> None:
            try:
                await self._application(scope, receive, messages.put)
            finally:
                messages.put_nowait(None)

        working = asyncio.create_task(work())
        try:
            ended = False
            while not ended:
                came = [await messages.get()]
                while not messages.empty():
                    came.append(messages.get_nowait())
                ended = came[-1] is None
                if told := [message for message in came if message is not None]:
                    yield told
            await working
        finally:
            gone.set()
            working.cancel()

    def check_health(self) -> None:
        """Raise ModelFileError if the engine has failed; Ray Serve then begins another replica."""
        if self._engine.closed:
            raise ModelFileError("the engine has failed")


async def _same(key: str) -> str:
    return key
