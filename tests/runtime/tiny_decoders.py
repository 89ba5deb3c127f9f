"""Random decoders of many architectures, from the table data/decoders.json, with any of the tokenizers."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from ..byte_level import byte_names
from .conftest import write_file

DECODERS: dict[str, dict[str, Any]] = json.loads(
    (Path(__file__).parents[1] / "data" / "decoders.json").read_bytes()
)
VOCABULARY = 300
_KEYS: dict[str, Any] = {
    **{"context_length": 512, "embedding_length": 128, "block_count": 4, "feed_forward_length": 192},
    **{"attention.head_count": 4, "attention.head_count_kv": 2, "rope.dimension_count": 32},
    **{"attention.key_length": 32, "attention.value_length": 32, "rope.freq_base": 10000.0},
    **{"attention.layer_norm_rms_epsilon": 1e-5, "attention.layer_norm_epsilon": 1e-5},
}
_BYTES = [f"<0x{byte:02X}>" for byte in range(256)]
_LETTERS = [chr(97 + n) for n in range(26)]
_RWKV_BYTES = [f"\\x{byte:02x}" for byte in range(256)]
# Tokens by the tokenizer's name; the first three are unknown, begin and end of text.
TOKENS = {
    "llama": ["<unk>", "<s>", "</s>", *_BYTES, "▁", "</", "s>", "▁1", "12", *_LETTERS],
    "rwkv": ["<unk>", "<s>", "</s>", *_RWKV_BYTES, "ab", "12"],
    "bert": ["[UNK]", "[CLS]", "[SEP]", "▁ab", "▁12", "c", *(f"▁{letter}" for letter in _LETTERS)],
    "t5": ["<unk>", "<s>", "</s>", "▁", "▁ab", "1", "2", *_LETTERS],
    "gpt2": ["<unk>", "<s>", "</s>", *byte_names()],
}


def write_decoder(path: Path, architecture: str, tokenizer: str = "llama", **keys: Any) -> Path:
    """Write a random decoder; `keys` are further metadata of the tokenizer, or None in place of them."""
    table = DECODERS[architecture]
    values = {f"{architecture}.{key}": value for key, value in (_KEYS | table["keys"]).items()}
    tokens = TOKENS[tokenizer]
    tokens = [*tokens, *(f"▁extra{n}" for n in range(VOCABULARY - len(tokens)))]
    names = {"model": tokenizer, "tokens": tokens, "scores": [-1.0 * n for n in range(VOCABULARY)]}
    types = [2, 3, 3, *(6 if token in _BYTES else 1 for token in tokens[3:])]
    ids = {f"{name}_token_id": id_ for name, id_ in (("unknown", 0), ("bos", 1), ("eos", 2))}
    tokenizer_keys = {**names, "token_type": types, "merges": ["a b"], **ids, **keys}
    values |= {f"tokenizer.ggml.{key}": value for key, value in tokenizer_keys.items() if value is not None}
    random = np.random.default_rng(13)
    layers = {
        f"blk.{n}.{name}": shape
        for numbers, shapes in table["layers"]
        for n in numbers
        for name, shape in shapes.items()
    }
    arrays = {}
    for name, shape in {**table["tensors"], **layers}.items():
        is_norm = len(shape) == 1 and "norm" in name and name.endswith("weight")
        array = random.normal(1.0 if is_norm else 0.0, 0.1, shape).astype(np.float32)
        arrays[name] = -np.abs(array) if name.endswith("ssm_a") else array
    return write_file(path, architecture, values, arrays)
