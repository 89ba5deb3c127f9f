"""A tiny random Llama and an adapter for it, as files."""

from pathlib import Path

import gguf
import numpy as np
import pytest

from ..runtime.conftest import EMBEDDING, write_gguf


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_gguf(tmp_path_factory.mktemp("tiny") / "tiny.gguf", {}, {})


@pytest.fixture(scope="session")
def lora(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("lora") / "lora.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_string("general.type", "adapter")
    writer.add_string("adapter.type", "lora")
    writer.add_float32("adapter.lora.alpha", 2.0)
    for part, shape in (("lora_a", (2, EMBEDDING)), ("lora_b", (EMBEDDING, 2))):
        writer.add_tensor(f"blk.0.attn_q.weight.{part}", np.full(shape, 0.01, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.fixture
def not_a_model(tmp_path: Path) -> Path:
    path = tmp_path / "no.gguf"
    path.write_bytes(b"not a model, but longer than a header")
    return path
