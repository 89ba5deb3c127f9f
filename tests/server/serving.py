"""The real server on a real socket, in a thread."""

import socket
import threading
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import sleep
from typing import Unpack

import httpx
import pytest
from openai import OpenAI
from starlette.applications import Starlette
from thirteen.runtime.engine.engine import Engine
from thirteen.runtime.engine.scheduler import Chunk, Scheduler
from thirteen.runtime.plan.options import EngineOptions
from thirteen.runtime.request import BASE
from thirteen.server.access.api_keys import ApiKeys
from thirteen.server.access.request_limits import RequestLimits
from thirteen.server.app import create_app
from thirteen.server.drain_server import DrainServer, bind_socket
from thirteen.server.engine_service import EngineService
from thirteen.server.served_models import ServedModels

from ..runtime.fixed_settings import FIXED

TIMEOUT_S = 60
FLAG = {
    "type": "object",
    "properties": {"ok": {"type": "boolean"}},
    "required": ["ok"],
    "additionalProperties": False,
}


@dataclass(frozen=True)
class RunningServer:
    """A running server and its parts."""

    served: ServedModels
    server: DrainServer
    socket: socket.socket

    @property
    def service(self) -> EngineService:
        """The service of the first model."""
        return next(iter(self.served.services.values()))

    @property
    def port(self) -> int:
        return int(self.socket.getsockname()[1])

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def openai(self, key: str = "none", *, timeout: float = TIMEOUT_S, max_retries: int = 0) -> OpenAI:
        return OpenAI(base_url=f"{self.url}/v1", api_key=key, timeout=timeout, max_retries=max_retries)

    def http(self) -> httpx.Client:
        return httpx.Client(base_url=self.url, timeout=TIMEOUT_S)


@contextmanager
def serve_engine(
    engine: Engine,
    *,
    name: str = "model",
    limits: RequestLimits | None = None,
    keys: Iterable[str] | None = None,
    allowed_hosts: Collection[str] | None = None,
    origins: Sequence[str] = (),
    kept_places: int = 0,
) -> Iterator[RunningServer]:
    """Serve an engine: the base model as `name`, and each adapter as a model under its own name."""
    models = {name: BASE} | {adapter: adapter for adapter in engine.adapters if adapter != BASE}
    served = ServedModels.on_engine(engine, models, kept_places=kept_places)
    limits = (limits or RequestLimits()).for_context(engine.context)
    api_keys = None if keys is None else ApiKeys(keys)
    app = create_app(served, limits, keys=api_keys, allowed_hosts=allowed_hosts, origins=origins)
    with run_app(app, served, limits) as server:
        yield server


@contextmanager
def run_app(app: Starlette, served: ServedModels, limits: RequestLimits) -> Iterator[RunningServer]:
    """Run an application until the end of the block, then drain."""
    server = DrainServer(app, served, limits, lambda: None, None)
    with bind_socket("127.0.0.1", 0) as bound:
        bound.listen()
        thread = threading.Thread(target=server.run, args=([bound],))
        thread.start()
        try:
            yield RunningServer(served, server, bound)
        finally:
            server.drain()
            thread.join(TIMEOUT_S)
            assert not thread.is_alive(), "the server does not exit"


def open_engine(path: Path, **options: Unpack[EngineOptions]) -> Engine:
    defaults: EngineOptions = FIXED | {"slots": 4, "context": 512}
    return Engine(path, **(defaults | options))


@contextmanager
def halted(running: int = 0) -> Iterator[None]:
    """Let engines compute nothing from when so many requests run: then none of them ends unless aborted."""
    compute, full = Scheduler.plan, threading.Event()

    def plan(scheduler: Scheduler) -> list[Chunk]:
        if len(scheduler.running) >= running:
            full.set()
        if not full.is_set():
            return compute(scheduler)
        sleep(0.01)
        return []

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Scheduler, "plan", plan)
        yield
