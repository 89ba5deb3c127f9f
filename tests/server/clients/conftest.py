"""Fixtures of the tests with clients: no other machine is reached, and a model calls functions."""

import os
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from thirteen.runtime.engine import dispatcher

from ..serving import RunningServer, open_engine, serve_engine
from ..tool_model import CONTEXT, ScriptedSampler, write_tool_model

OFFLINE = {
    "DO_NOT_TRACK": "1",
    "HF_HUB_OFFLINE": "1",
    "HF_DATASETS_OFFLINE": "1",
    "HF_EVALUATE_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_UPDATE_DOWNLOAD_COUNTS": "false",
    "LANGCHAIN_TRACING_V2": "false",
    "LANGSMITH_TRACING": "false",
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    "LITELLM_LOG": "ERROR",
}
LOCAL_HOSTS = ("127.0.0.1", "localhost", "::1")


@pytest.fixture(scope="module", autouse=True)
def offline() -> Iterator[None]:
    """Telemetry and downloads are off; a client that connects to another machine all the same fails."""
    attempts: list[Any] = []
    connect = socket.socket.connect

    def connect_locally(connection: socket.socket, address: Any) -> None:
        if connection.family != socket.AF_UNIX and address[0] not in LOCAL_HOSTS:
            attempts.append(address)
            raise ConnectionRefusedError(f"{address}: tests reach no other machine")
        connect(connection, address)

    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.upper().endswith("_PROXY")]:
            patch.delenv(name)
        for name, value in OFFLINE.items():
            patch.setenv(name, value)
        patch.setattr(socket.socket, "connect", connect_locally)
        yield
    assert attempts == []


@pytest.fixture(scope="module")
def tool_server(
    tmp_path_factory: pytest.TempPathFactory, write_tiny: Callable[..., Path]
) -> Iterator[RunningServer]:
    """HTTP server of the tiny model with a chat template that takes tools, as model "tiny"."""
    path = write_tool_model(write_tiny, tmp_path_factory.mktemp("tools") / "tiny.gguf", "tagged")
    with ExitStack() as stack:
        engine = stack.enter_context(open_engine(path, context=CONTEXT))
        yield stack.enter_context(serve_engine(engine, name="tiny"))


@pytest.fixture
def say(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """say(text, …): let the model say these texts, one for each answer, the last for all others."""
    monkeypatch.setattr(dispatcher, "Sampler", ScriptedSampler)
    return lambda *texts: monkeypatch.setattr(ScriptedSampler, "scripts", [*texts])
