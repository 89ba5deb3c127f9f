"""Fixtures: the models of tests/runtime, HTTP servers of them, and what a model says."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from openai import OpenAI
from thirteen.runtime.engine.engine import Engine

from ..runtime.conftest import ending, say, smollm2, tiny, write_tiny
from .serving import RunningServer, open_engine, serve_engine
from .tool_model import CONTEXT, write_tool_model

__all__ = ["ending", "say", "smollm2", "tiny", "write_tiny"]


@pytest.fixture(scope="module")
def smollm2_server(smollm2: Path) -> Iterator[RunningServer]:
    """HTTP server of SmolLM2, as model "smollm2"."""
    with open_engine(smollm2) as engine, serve_engine(engine, name="smollm2") as server:
        yield server


@pytest.fixture(scope="module")
def tiny_server(tiny: Path) -> Iterator[RunningServer]:
    """HTTP server of the tiny model, as model "tiny"."""
    with open_engine(tiny, context=256) as engine, serve_engine(engine, name="tiny") as server:
        yield server


@pytest.fixture(scope="module")
def tool_server(
    tmp_path_factory: pytest.TempPathFactory, write_tiny: Callable[..., Path]
) -> Iterator[RunningServer]:
    """HTTP server of the tiny model with a chat template that takes tools, as model "tiny"."""
    path = write_tool_model(write_tiny, tmp_path_factory.mktemp("tools") / "tiny.gguf", "tagged")
    with open_engine(path, context=CONTEXT) as engine, serve_engine(engine, name="tiny") as server:
        yield server


@pytest.fixture(scope="module")
def tiny_client(tiny_server: RunningServer) -> Iterator[OpenAI]:
    """OpenAI's client of the tiny model."""
    with tiny_server.openai() as client:
        yield client


@pytest.fixture(scope="module")
def tool_client(tool_server: RunningServer) -> Iterator[OpenAI]:
    """OpenAI's client of the tiny model that takes tools."""
    with tool_server.openai() as client:
        yield client


@pytest.fixture
def serving(engine: Engine) -> Iterator[Callable[..., Any]]:
    """serving(**options): serve the module's engine; an HTTP client with the server as `running`."""
    with ExitStack() as stack:

        def start(**options: Any) -> Any:
            server = stack.enter_context(serve_engine(engine, name="tiny", **options))
            client: Any = stack.enter_context(server.http())
            client.running = server
            return client

        yield start
    assert engine.load.running == engine.load.waiting == 0, "leaked a slot"
