"""Fixtures of the tests with clients: the server is where these look for one, and nothing else is reached."""

import os
import socket
from collections.abc import Iterator
from typing import Any

import pytest

from ..serving import RunningServer

OFFLINE = {
    "DO_NOT_TRACK": "1",
    "HF_HUB_OFFLINE": "1",
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
def server(tool_server: RunningServer) -> Iterator[RunningServer]:
    """The server of the tiny model, as the variables of the clients name it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OPENAI_API_KEY", "unused")
        patch.setenv("OPENAI_BASE_URL", f"{tool_server.url}/v1")
        patch.setenv("OLLAMA_HOST", tool_server.url)
        patch.setenv("OLLAMA_API_BASE", tool_server.url)
        yield tool_server
