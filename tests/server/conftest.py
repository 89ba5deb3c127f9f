"""Fixtures: the models of tests/runtime, HTTP servers of them, and what a model says."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from openai import OpenAI
from thirteen.runtime.engine.engine import Engine

from ..runtime.conftest import ending, engine, loras, say, smollm2, texts, tiny, typed, write_tiny
from .serving import RunningServer, open_engine, serve_engine
from .tool_model import tool_template

__all__ = ["ending", "engine", "loras", "say", "smollm2", "texts", "tiny", "write_tiny"]

CONTEXT = 2048


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
def embedding_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """HTTP server of a tiny model made for embeddings, as model "bert"."""
    from ..runtime.embedders import write_embedder  # imports torch

    path = write_embedder(tmp_path_factory.mktemp("bert") / "bert.gguf", "bert", "mean")
    with open_engine(path) as engine, serve_engine(engine, name="bert") as server:
        yield server


@pytest.fixture(scope="module")
def serve_template(
    tmp_path_factory: pytest.TempPathFactory, write_tiny: Callable[..., Path]
) -> Iterator[Callable[[str], RunningServer]]:
    """serve_template(template): HTTP server of the tiny model with this chat template, as model "tiny"."""
    with ExitStack() as stack:

        def serve(template: str) -> RunningServer:
            keys = {"tokenizer.chat_template": typed(template), "llama.context_length": typed(CONTEXT)}
            path = write_tiny(tmp_path_factory.mktemp("template") / "tiny.gguf", keys)
            engine = stack.enter_context(open_engine(path, context=CONTEXT))
            return stack.enter_context(serve_engine(engine, name="tiny"))

        yield serve


@pytest.fixture(scope="module")
def tool_server(serve_template: Callable[[str], RunningServer]) -> RunningServer:
    """HTTP server of the tiny model with a chat template that takes tools, as model "tiny"."""
    return serve_template(tool_template("tagged"))


@pytest.fixture(scope="module")
def tiny_client(tiny_server: RunningServer) -> OpenAI:
    """OpenAI's client of the tiny model."""
    return tiny_server.openai()


@pytest.fixture
def serving(engine: Engine) -> Iterator[Callable[..., Any]]:
    """serving(**options): serve the engine; an HTTP client with the server as `running`."""
    with ExitStack() as stack:

        def start(**options: Any) -> Any:
            server = stack.enter_context(serve_engine(engine, name="tiny", **options))
            client: Any = stack.enter_context(server.http())
            client.running = server
            return client

        yield start
    assert engine.load.running == engine.load.waiting == 0, "leaked a slot"
