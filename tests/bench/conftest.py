"""An adapter for the tiny model, and a file that is no model."""

from pathlib import Path

import numpy as np
import pytest

from ..runtime.conftest import EMBEDDING
from ..runtime.gguf_adapters import write_factors


@pytest.fixture(scope="session")
def lora(tmp_path_factory: pytest.TempPathFactory) -> Path:
    factors = np.full((2, EMBEDDING), 0.01), np.full((EMBEDDING, 2), 0.01)
    return write_factors(tmp_path_factory.mktemp("lora") / "lora.gguf", {"blk.0.attn_q.weight": factors})


@pytest.fixture
def not_a_model(tmp_path: Path) -> Path:
    path = tmp_path / "no.gguf"
    path.write_bytes(b"not a model, but longer than a header")
    return path
