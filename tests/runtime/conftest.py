"""Fixtures: a tiny random Llama with a byte-level vocabulary, the real SmolLM2, and engines over fakes."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from thirteen.models.embedded import embedded
from thirteen.runtime.engine.engine import Engine

from ..byte_level import byte_names
from .fakes import fake_engines

LAYERS, EMBEDDING, FEED_FORWARD, HEADS, KEY_HEADS, HEAD, CONTEXT = 2, 64, 96, 4, 2, 16, 256
CONTROL = ("<|bos|>", "<|im_start|>", "<|im_end|>")
TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content | trim }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def metadata() -> dict[str, tuple[Any, gguf.GGUFValueType, gguf.GGUFValueType | None]]:
    """Metadata of the tiny model: value, type and element type of each key."""
    kinds = gguf.GGUFValueType
    u32, f32, text, array = kinds.UINT32, kinds.FLOAT32, kinds.STRING, kinds.ARRAY
    tokens = [*byte_names(), *CONTROL]
    return {
        "general.architecture": ("llama", text, None),
        "general.name": ("tiny", text, None),
        "llama.context_length": (CONTEXT, u32, None),
        "llama.embedding_length": (EMBEDDING, u32, None),
        "llama.block_count": (LAYERS, u32, None),
        "llama.feed_forward_length": (FEED_FORWARD, u32, None),
        "llama.attention.head_count": (HEADS, u32, None),
        "llama.attention.head_count_kv": (KEY_HEADS, u32, None),
        "llama.attention.key_length": (HEAD, u32, None),
        "llama.attention.value_length": (HEAD, u32, None),
        "llama.rope.dimension_count": (HEAD, u32, None),
        "llama.rope.freq_base": (10000.0, f32, None),
        "llama.attention.layer_norm_rms_epsilon": (1e-5, f32, None),
        "llama.vocab_size": (len(tokens), u32, None),
        "tokenizer.ggml.model": ("gpt2", text, None),
        "tokenizer.ggml.pre": ("llama-bpe", text, None),
        "tokenizer.ggml.tokens": (tokens, array, text),
        "tokenizer.ggml.token_type": ([1] * 256 + [3] * len(CONTROL), array, kinds.INT32),
        "tokenizer.ggml.merges": (["a b", "t h"], array, text),
        "tokenizer.ggml.bos_token_id": (256, u32, None),
        "tokenizer.ggml.eos_token_id": (258, u32, None),
        "tokenizer.ggml.add_bos_token": (True, kinds.BOOL, None),
        "tokenizer.chat_template": (TEMPLATE, text, None),
    }


def tensors() -> dict[str, np.ndarray]:
    """Tensors of the tiny model, random with a fixed seed."""
    random = np.random.default_rng(13)
    matrices = {
        "attn_q": (HEADS * HEAD, EMBEDDING),
        "attn_k": (KEY_HEADS * HEAD, EMBEDDING),
        "attn_v": (KEY_HEADS * HEAD, EMBEDDING),
        "attn_output": (EMBEDDING, HEADS * HEAD),
        "ffn_gate": (FEED_FORWARD, EMBEDDING),
        "ffn_up": (FEED_FORWARD, EMBEDDING),
        "ffn_down": (EMBEDDING, FEED_FORWARD),
    }
    shapes = {"token_embd.weight": (256 + len(CONTROL), EMBEDDING)}
    shapes |= {f"blk.{n}.{name}.weight": shape for n in range(LAYERS) for name, shape in matrices.items()}
    norms = [f"blk.{n}.{name}.weight" for n in range(LAYERS) for name in ("attn_norm", "ffn_norm")]
    made = {name: random.normal(0, 0.3, shape).astype(np.float32) for name, shape in shapes.items()}
    return made | {name: np.ones(EMBEDDING, np.float32) for name in (*norms, "output_norm.weight")}


def write_gguf(path: Path, keys: dict[str, Any], arrays: dict[str, np.ndarray]) -> Path:
    """Write the tiny model with changes: None removes a key or a tensor, an array of bytes is Q4_0."""
    writer = gguf.GGUFWriter(path, "llama")
    for key, entry in (metadata() | keys).items():
        if entry is not None and key != "general.architecture":
            value, kind, element = entry
            writer.add_key_value(key, value, kind, element)
    if "general.architecture" in keys:
        del writer.kv_data[0]["general.architecture"]
        if keys["general.architecture"] is not None:
            writer.add_key_value("general.architecture", *keys["general.architecture"])
    for name, array in (tensors() | arrays).items():
        if array is not None:
            quantized = gguf.GGMLQuantizationType.Q4_0 if array.dtype == np.uint8 else None
            writer.add_tensor(name, array, raw_dtype=quantized)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.fixture(scope="session")
def write_tiny() -> Callable[..., Path]:
    """write_tiny(path, keys={}, arrays={}): write the tiny model with changes; see write_gguf()."""

    def write(path: Path, keys: dict[str, Any] | None = None, arrays: dict[str, Any] | None = None) -> Path:
        return write_gguf(path, keys or {}, arrays or {})

    return write


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory, write_tiny: Callable[..., Path]) -> Path:
    """Path of the tiny model."""
    return write_tiny(tmp_path_factory.mktemp("tiny") / "tiny.gguf")


@pytest.fixture(scope="session")
def wide_heads(tmp_path_factory: pytest.TempPathFactory, write_tiny: Callable[..., Path]) -> Path:
    """Path of a tiny model with half as many heads of twice the width: whole blocks of q8_0."""
    names = ("attention.key_length", "attention.value_length", "rope.dimension_count")
    values = {"attention.head_count": 2, "attention.head_count_kv": 1, **dict.fromkeys(names, 32)}
    keys = {f"llama.{name}": (value, gguf.GGUFValueType.UINT32, None) for name, value in values.items()}
    return write_tiny(tmp_path_factory.mktemp("wide") / "wide.gguf", keys)


@pytest.fixture(scope="session")
def ending(tmp_path_factory: pytest.TempPathFactory, write_tiny: Callable[..., Path]) -> Path:
    """Path of a tiny model that gives the end-of-generation token after anything."""
    embedding = np.zeros((256 + len(CONTROL), EMBEDDING), np.float32)
    embedding[:, 0] = 1.0
    embedding[258, 0] = 9.0  # the tied output layer makes this the likeliest token
    shapes = {"attn_output": (EMBEDDING, HEADS * HEAD), "ffn_down": (EMBEDDING, FEED_FORWARD)}
    quiet = {  # zeroed matrices: the output layer then sees the embedding alone
        f"blk.{n}.{name}.weight": np.zeros(shape, np.float32)
        for n in range(LAYERS)
        for name, shape in shapes.items()
    }
    path = tmp_path_factory.mktemp("ending") / "ending.gguf"
    return write_tiny(path, arrays={"token_embd.weight": embedding, **quiet})


@pytest.fixture(scope="session")
def smollm2() -> Path:
    """Path of SmolLM2-135M-Instruct, Q4_1."""
    return embedded()


@pytest.fixture
def open_fake_engine(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Engine]]:
    """open_fake_engine(**options): open an engine over the fakes; see fakes.py."""
    with fake_engines(monkeypatch) as open_engine:
        yield open_engine
