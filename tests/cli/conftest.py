"""A model for command lines."""

from pathlib import Path

import pytest

from ..runtime.conftest import write_gguf


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_gguf(tmp_path_factory.mktemp("models") / "tiny.gguf", {}, {})
