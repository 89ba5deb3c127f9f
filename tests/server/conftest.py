"""Fixtures: the models of tests/runtime, and HTTP servers of them."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from ..runtime.conftest import ending, open_fake_engine, smollm2, tiny, write_tiny
from .serving import RunningServer, open_engine, serve_engine

__all__ = ["ending", "open_fake_engine", "smollm2", "tiny", "write_tiny"]


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
