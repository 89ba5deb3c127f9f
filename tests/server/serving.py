"""The real server on a real socket, in a thread."""

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import sleep
from typing import Any

import httpx
import pytest
from openai import OpenAI
from thirteen.runtime.engine.engine import Engine
from thirteen.runtime.engine.scheduler import Chunk, Scheduler
from thirteen.runtime.options import BASE
from thirteen.server.config import ApiKeys, ListenConfig, RequestLimits, base_url
from thirteen.server.engine_service import EngineService
from thirteen.server.serving import DrainServer, bind_socket

from ..runtime.fakes import FIXED

TIMEOUT_S = 60
WORK = {"prompt": "a", "max_tokens": 2}
FLAG = {
    "type": "object",
    "properties": {"ok": {"type": "boolean"}},
    "required": ["ok"],
    "additionalProperties": False,
}


@dataclass(frozen=True)
class RunningServer:
    """A running server."""

    service: EngineService
    url: str

    def openai(self) -> OpenAI:
        return OpenAI(base_url=f"{self.url}/v1", api_key="none", timeout=TIMEOUT_S, max_retries=0)

    def http(self) -> httpx.Client:
        return httpx.Client(base_url=self.url, timeout=TIMEOUT_S)


@contextmanager
def serve_engine(
    engine: Engine,
    *,
    name: str = "model",
    limits: RequestLimits | None = None,
    keys: ApiKeys | None = None,
    origins: Sequence[str] = (),
) -> Iterator[RunningServer]:
    """Serve an engine: the base model as `name`, and each adapter as a model under its own name."""
    models = {name: BASE} | {adapter: adapter for adapter in engine.adapters if adapter != BASE}
    service = EngineService(engine, models, limits)
    server = DrainServer(service, ListenConfig(keys=keys, origins=origins))
    with bind_socket("127.0.0.1", 0) as bound:
        thread = threading.Thread(target=server.run, args=([bound],))
        thread.start()
        try:
            yield RunningServer(service, base_url(*bound.getsockname()))
        finally:
            server.drain()
            thread.join(TIMEOUT_S)
            assert not thread.is_alive(), "the server does not exit"


def refused(response: httpx.Response, status: int) -> dict[str, Any]:
    """The error of a response with this status, in OpenAI's format."""
    assert response.status_code == status, response.text
    error: dict[str, Any] = response.json()["error"]
    assert error.keys() == {"message", "type", "param", "code"} and error["message"]
    return error


def open_engine(path: Path, **options: Any) -> Engine:
    defaults = FIXED | {"slots": 4, "context": 512}
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
