"""Ray Serve replica: an engine behind the HTTP application of `thirteen serve`."""

import asyncio
from collections.abc import AsyncIterator, Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import FileError
from ..runtime.engine.engine import Engine
from ..runtime.plan.options import EngineOptions
from ..server.access.request_limits import RequestLimits
from ..server.app import create_app
from ..server.serve import ListenConfig
from ..server.served_models import ServedModels
from .ray_session import SharedFiles, bind_serve_port_to_loopback

ROUTING_KEYS_MAX = 512  # routing keys that a replica is known for

Message = MutableMapping[str, Any]


@dataclass(frozen=True)
class ReplicaConfig:
    """Configuration of all replicas of a deployment.

    Attributes:
        models: served model name -> engine adapter; the first model is the default.
        engine: keyword arguments of Engine(), without its files.
        limits: limits of requests.
        listen: listen address and access rules.
    """

    models: Mapping[str, str]
    engine: EngineOptions
    limits: RequestLimits
    listen: ListenConfig


class Replica:
    """One engine and its HTTP application."""

    def __init__(self, config: ReplicaConfig, files: SharedFiles, adapters: Sequence[str]) -> None:
        """Fetch the files and load the engine.

        Args:
            config: configuration of the replica.
            files: the model and its adapters.
            adapters: engine names of the adapters, in the order of the files.

        Raises:
            ThirteenError: a file cannot be fetched, or the engine cannot run it.
        """
        from ray import serve  # noqa: PLC0415 - an extra

        bind_serve_port_to_loopback()
        model, *loras = files.fetch()
        named = dict(zip(adapters, loras, strict=True))
        # The command that deploys has loaded the files on trial.
        self._engine = Engine(model, **config.engine | EngineOptions(adapters=named, untrusted=False))
        service = ServedModels.on_engine(self._engine, config.models)
        self._application = create_app(
            service,
            config.limits.for_context(self._engine.context),
            keys=config.listen.keys,
            allowed_hosts=config.listen.allowed_hosts,
        )  # without CORS: the router adds it, to its own responses too
        # Ray Serve routes by the models that a replica has loaded. Our "models" are routing keys.
        self._load_key = serve.multiplexed(max_num_models_per_replica=ROUTING_KEYS_MAX)(_load_key)

    async def respond(
        self, scope: dict[str, Any], body: bytes, routing_keys: Sequence[str]
    ) -> AsyncIterator[list[Message]]:
        """Respond to a request.

        Args:
            scope: ASGI scope.
            body: request body.
            routing_keys: keys that this replica is known for from now on.

        Yields:
            ASGI messages of the response, all that are ready at a time.
        """
        for key in routing_keys:
            await self._load_key(key)
        messages: asyncio.Queue[Message | None] = asyncio.Queue()
        disconnected = asyncio.Event()
        unread = [{"type": "http.request", "body": body, "more_body": False}]

        async def receive() -> Message:
            if unread:
                return unread.pop()
            await disconnected.wait()
            return {"type": "http.disconnect"}

        async def run_application() -> None:
            try:
                await self._application(scope, receive, messages.put)
            finally:
                messages.put_nowait(None)

        task = asyncio.create_task(run_application())
        try:
            ended = False
            while not ended:
                ready = [await messages.get()]
                while not messages.empty():
                    ready.append(messages.get_nowait())
                ended = ready[-1] is None
                if response := [message for message in ready if message is not None]:
                    yield response
            await task
        finally:
            disconnected.set()
            task.cancel()

    def check_health(self) -> None:
        """Raise FileError if the engine has failed; Ray Serve then replaces the replica."""
        if self._engine.closed:
            raise FileError("the engine has failed")


async def _load_key(key: str) -> str:
    return key
