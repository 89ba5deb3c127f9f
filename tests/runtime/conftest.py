"""Fixtures: a tiny random Llama with a byte-level vocabulary, an engine of it, and the real SmolLM2."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from thirteen.models.embedded import embedded
from thirteen.runtime.engine import dispatcher
from thirteen.runtime.engine.engine import Engine
from thirteen.runtime.llama.model import Model

from ..byte_level import byte_names
from ..waiting import wait_until
from .fakes import FIXED, ScriptedSampler
from .grammar.texts import GrammarTexts

LAYERS, EMBEDDING, FEED_FORWARD, HEADS, KEY_HEADS, HEAD, CONTEXT = 2, 64, 96, 4, 2, 16, 256
CONTROL = ("<|bos|>", "<|im_start|>", "<|im_end|>")
TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content | trim }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def typed(value: Any) -> tuple[Any, gguf.GGUFValueType, gguf.GGUFValueType | None]:
    """A value of metadata, with its type and that of its elements."""
    kinds = gguf.GGUFValueType
    if isinstance(value, list):
        elements = {str: kinds.STRING, float: kinds.FLOAT32, int: kinds.INT32}
        return value, kinds.ARRAY, elements[type(value[0])]
    types = {bool: kinds.BOOL, int: kinds.UINT32, float: kinds.FLOAT32, str: kinds.STRING}
    return value, types[type(value)], None


def metadata() -> dict[str, Any]:
    """Metadata of the tiny model."""
    tokens = [*byte_names(), *CONTROL]
    llama = {
        **{"context_length": CONTEXT, "embedding_length": EMBEDDING, "block_count": LAYERS},
        **{"feed_forward_length": FEED_FORWARD, "attention.head_count": HEADS},
        **{"attention.head_count_kv": KEY_HEADS, "rope.freq_base": 10000.0},
        **dict.fromkeys(("attention.key_length", "attention.value_length", "rope.dimension_count"), HEAD),
        **{"attention.layer_norm_rms_epsilon": 1e-5, "vocab_size": len(tokens)},
    }
    tokenizer = {
        **{"model": "gpt2", "pre": "llama-bpe", "tokens": tokens, "merges": ["a b", "t h"]},
        "token_type": [1] * 256 + [3] * len(CONTROL),
        **{"bos_token_id": 256, "eos_token_id": 258, "add_bos_token": True},
    }
    values: dict[str, Any] = {"general.name": "tiny"}
    values |= {f"llama.{name}": value for name, value in llama.items()}
    values |= {f"tokenizer.ggml.{name}": value for name, value in tokenizer.items()}
    return {**values, "tokenizer.chat_template": TEMPLATE}


def tensors() -> dict[str, np.ndarray]:
    """Tensors of the tiny model, random with a fixed seed."""
    random = np.random.default_rng(13)
    queries, keys, width, inner = HEADS * HEAD, KEY_HEADS * HEAD, EMBEDDING, FEED_FORWARD
    matrices = {"attn_q": (queries, width), "attn_k": (keys, width), "attn_v": (keys, width)}
    matrices |= {"attn_output": (width, queries), "ffn_gate": (inner, width), "ffn_up": (inner, width)}
    matrices["ffn_down"] = (width, inner)
    shapes = {"token_embd.weight": (256 + len(CONTROL), EMBEDDING)}
    shapes |= {f"blk.{n}.{name}.weight": shape for n in range(LAYERS) for name, shape in matrices.items()}
    norms = [f"blk.{n}.{name}.weight" for n in range(LAYERS) for name in ("attn_norm", "ffn_norm")]
    made = {name: random.normal(0, 0.3, shape).astype(np.float32) for name, shape in shapes.items()}
    return made | {name: np.ones(EMBEDDING, np.float32) for name in (*norms, "output_norm.weight")}


def write_gguf(path: Path, keys: dict[str, Any], arrays: dict[str, np.ndarray]) -> Path:
    """Write the tiny model with changes; see write_file()."""
    return write_file(path, "llama", metadata() | keys, tensors() | arrays)


def write_file(path: Path, architecture: str, values: dict[str, Any], arrays: dict[str, Any]) -> Path:
    """Write metadata, plain or as typed() returns them, and tensors; those that are None are left out.

    An array of bytes is Q4_0.
    """
    writer = gguf.GGUFWriter(path, architecture)
    del writer.kv_data[0]["general.architecture"]  # it may be among the values
    for key, value in {"general.architecture": architecture, **values}.items():
        if value is not None:
            writer.add_key_value(key, *(value if isinstance(value, tuple) else typed(value)))
    for name, array in arrays.items():
        if array is not None:
            quantized = gguf.GGMLQuantizationType.Q4_0 if array.dtype == np.uint8 else None
            writer.add_tensor(name, array, raw_dtype=quantized)
    return finish(writer, path)


def finish(writer: gguf.GGUFWriter, path: Path) -> Path:
    """Write what has been added."""
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.fixture(scope="session")
def write_tiny() -> Callable[..., Path]:
    """write_tiny(path, keys={}, arrays={}): write the tiny model with changes; see write_file()."""
    return lambda path, keys={}, arrays={}: write_gguf(path, keys, arrays)


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory, write_tiny: Callable[..., Path]) -> Path:
    """Path of the tiny model."""
    return write_tiny(tmp_path_factory.mktemp("tiny") / "tiny.gguf")


@pytest.fixture(scope="session")
def wide_heads(tmp_path_factory: pytest.TempPathFactory, write_tiny: Callable[..., Path]) -> Path:
    """Path of a tiny model with half as many heads of twice the width: whole blocks of q8_0."""
    names = ("attention.key_length", "attention.value_length", "rope.dimension_count")
    values = {"attention.head_count": 2, "attention.head_count_kv": 1, **dict.fromkeys(names, 32)}
    keys = {f"llama.{name}": value for name, value in values.items()}
    return write_tiny(tmp_path_factory.mktemp("wide") / "wide.gguf", keys)


@pytest.fixture(scope="session")
def ending(tmp_path_factory: pytest.TempPathFactory, write_tiny: Callable[..., Path]) -> Path:
    """Path of a tiny model that gives the end-of-generation token after anything."""
    embedding = np.zeros((256 + len(CONTROL), EMBEDDING), np.float32)
    embedding[:, 0] = 1.0
    embedding[258, 0] = 9.0  # the tied output layer makes this the likeliest token
    # Zeroed matrices: the output layer then sees the embedding alone.
    quiet = {name: 0 * array for name, array in tensors().items() if array.ndim == 2}
    path = tmp_path_factory.mktemp("ending") / "ending.gguf"
    return write_tiny(path, arrays=quiet | {"token_embd.weight": embedding})


@pytest.fixture(scope="session")
def smollm2() -> Path:
    """Path of SmolLM2-135M-Instruct, Q4_1."""
    return embedded()


@pytest.fixture(scope="session")
def loras(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Adapters of the tiny model by name; each changes its answers, and "nan" has no numbers."""
    from .gguf_adapters import MATRICES, write_factors, write_lora

    folder = tmp_path_factory.mktemp("adapters")
    files = {name: write_lora(folder / f"{name}.gguf", seed) for seed, name in enumerate("abc")}
    nothing = {MATRICES[0]: (np.full((1, EMBEDDING), np.nan), np.ones((HEADS * HEAD, 1)))}
    return {**files, "nan": write_factors(folder / "nan.gguf", nothing)}


@pytest.fixture(scope="session")
def engine(tiny: Path, loras: dict[str, Path]) -> Iterator[Engine]:
    """An engine of the tiny model with adapters, four slots and a queue of four."""
    with Engine(tiny, adapters=loras, slots=4, queue=4, context=CONTEXT, **FIXED) as engine:
        yield engine
        wait_until(lambda: engine.load == (0, 0))  # no request is left


@pytest.fixture
def say(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """say(text, …, pause_s=0): what the next answers say, the last for all others; see ScriptedSampler."""
    monkeypatch.setattr(dispatcher, "Sampler", ScriptedSampler)

    def say(*scripts: str | Exception, pause_s: float = 0.0) -> None:
        monkeypatch.setattr(ScriptedSampler, "scripts", [*scripts])
        monkeypatch.setattr(ScriptedSampler, "pause_s", pause_s)

    return say


@pytest.fixture(scope="session")
def texts(tiny: Path) -> Iterator[GrammarTexts]:
    """Texts of grammars on the tiny model's vocabulary."""
    with Model(tiny) as model:
        yield GrammarTexts(model)
