"""Fixtures: the models of the runtime tests, and a file that is not a model."""

from pathlib import Path

import pytest

from ..runtime.conftest import smollm2, tiny, write_tiny

__all__ = ["smollm2", "tiny", "write_tiny"]


@pytest.fixture
def not_a_model(tmp_path: Path) -> Path:
    path = tmp_path / "no.gguf"
    path.write_text("hello")
    return path
