"""The real server on a real socket, in a thread of the tests."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
from openai import OpenAI
from thirteen.runtime.engine.engine import Engine
from thirteen.runtime.request import BASE
from thirteen.runtime.server.api_keys import ApiKeys
from thirteen.runtime.server.app import application
from thirteen.runtime.server.drain_server import DrainServer, bind
from thirteen.runtime.server.engine_service import EngineService
from thirteen.runtime.server.request_limits import RequestLimits

TIMEOUT_S = 60


@dataclass(frozen=True)
class Served:
    """A server that is running."""

    desk: EngineService
    listener: DrainServer
    bound: socket.socket

    @property
    def port(self) -> int:
        return self.bound.getsockname()[1]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def openai(self, key: str = "none", **options) -> OpenAI:
        return OpenAI(
            base_url=f"{self.url}/v1", api_key=key, **{"max_retries": 0, "timeout": TIMEOUT_S} | options
        )

    def http(self, **options) -> httpx.Client:
        return httpx.Client(base_url=self.url, timeout=TIMEOUT_S, **options)


@contextmanager
def served(
    engine: Engine, *, name="model", bounds=None, keys=None, hosts=None, origins=(), log_prompts=False
) -> Iterator[Served]:
    """Serve an engine; every adapter of it is a model by its own name."""
    names = {name: BASE} | {adapter: adapter for adapter in engine.adapters if adapter != BASE}
    desk = EngineService(engine, names, log_prompts=log_prompts)
    bounds = (bounds or RequestLimits()).within(engine.context)
    app = application(desk, bounds, keys=keys and ApiKeys(keys), hosts=hosts, origins=origins)
    listener = DrainServer(app, desk, bounds)
    with bind("127.0.0.1", 0) as bound:
        bound.listen()
        thread = threading.Thread(target=listener.run, args=([bound],))
        thread.start()
        try:
            yield Served(desk, listener, bound)
        finally:
            listener.drain()
            thread.join(TIMEOUT_S)
            assert not thread.is_alive(), "the server does not end"


def opened(path: Path, **options) -> Engine:
    return Engine(path, **{"slots": 4, "threads": 1, "context": 512} | options)
