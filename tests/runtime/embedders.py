"""Small random models of embeddings: computed by transformers, and written as GGUF by the package gguf."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import BertConfig, BertModel, Gemma3TextConfig, Gemma3TextModel, Qwen3Config, Qwen3Model

from ..byte_level import byte_names
from .conftest import write_file

_WORDS = ("the", "cat", "dog", "sat", "mat", "on", "ran", "eggs", "how", "many", "she", "have", "is", "red")
_LETTERS = [chr(97 + n) for n in range(26)]
# As in BERT's own files: pad is 0, and unknown, cls, sep and mask are 100 to 103.
_SPECIAL = ["[PAD]", *(f"[unused{n}]" for n in range(99)), "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
_BERT_TOKENS = [
    *_SPECIAL,
    *(*"0123456789.,?!'-[]", *_LETTERS, *(f"##{letter}" for letter in _LETTERS), *_WORDS, "##ing"),
]
_END = "<|endoftext|>"
_BYTE_TOKENS = [*byte_names(), _END]
CONTEXT = 64
POOLINGS = {"mean": 1, "cls": 2, "lasttoken": 3, "rank": 4}
_SHAPE: dict[str, Any] = {
    **{"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4},
    **{"max_position_embeddings": CONTEXT, "num_key_value_heads": 2, "head_dim": 16},
}
_ROPE = {"rope_type": "default", "rope_theta": 1e4}
_GEMMA: dict[str, Any] = {
    **{"use_bidirectional_attention": True, "query_pre_attn_scalar": 16, "num_hidden_layers": 6},
    "layer_types": ["sliding_attention"] * 5 + ["full_attention"],
    "sliding_window": 16,  # 8 on each side
    "rope_parameters": {"sliding_attention": _ROPE, "full_attention": _ROPE},
}


def tokenizer_of(kind: str) -> Tokenizer:
    """The tokenizer that transformers would use; all but bert's are byte-level."""
    bert = kind == "bert"
    vocab = {token: number for number, token in enumerate(_BERT_TOKENS if bert else _BYTE_TOKENS)}
    tokenizer = Tokenizer(models.WordPiece(vocab, unk_token="[UNK]") if bert else models.BPE(vocab, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    if bert:
        tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
        tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    around, ends = ("[CLS] $0 [SEP]", ["[CLS]", "[SEP]"]) if bert else (f"$0 {_END}", [_END])
    special = [(token, vocab[token]) for token in ends]
    tokenizer.post_processor = processors.TemplateProcessing(single=around, special_tokens=special)
    return tokenizer


def oracle(kind: str, pooling: str, tokens: Sequence[Sequence[int]]) -> np.ndarray:
    """Embeddings as sentence-transformers documents them: pooled, and normalized to a length of 1."""
    model, rows = random_model(kind), []
    for text in tokens:
        with torch.no_grad():
            hidden = model(torch.tensor([text])).last_hidden_state[0]  # (tokens, width)
        row = {"cls": hidden[0], "lasttoken": hidden[-1], "mean": hidden.mean(0)}[pooling]
        rows.append((row / row.norm()).numpy())
    return np.stack(rows)


def random_model(kind: str) -> torch.nn.Module:
    """A model of random weights, in float32."""
    with torch.random.fork_rng():
        torch.manual_seed(13)
        model: torch.nn.Module
        if kind == "bert":
            model = BertModel(BertConfig(vocab_size=len(_BERT_TOKENS), **_SHAPE), add_pooling_layer=False)
        elif kind == "qwen3":
            model = Qwen3Model(Qwen3Config(vocab_size=len(_BYTE_TOKENS), **_SHAPE))
        else:
            model = Gemma3TextModel(Gemma3TextConfig(vocab_size=len(_BYTE_TOKENS), **_SHAPE | _GEMMA))
        for name, parameter in model.named_parameters():
            norm = "norm" in name.lower() and name.endswith("weight") and kind != "gemma-embedding"
            torch.nn.init.normal_(parameter, mean=float(norm), std=0.3)
    model.eval()
    return model


def write_embedder(path: Path, kind: str, pooling: str | None) -> Path:
    """Write random_model(kind) as GGUF: bert, qwen3 or gemma-embedding."""
    model = random_model(kind)
    config: Any = model.config
    bert, gemma = kind == "bert", kind == "gemma-embedding"
    tokenizer: dict[str, Any]
    keys: dict[str, Any] = {
        **{"context_length": CONTEXT, "embedding_length": 64, "feed_forward_length": 96},
        **{"block_count": config.num_hidden_layers, "attention.head_count": 4},
        **{"attention.head_count_kv": 4 if bert else 2, "pooling_type": POOLINGS.get(pooling or "")},
        "attention.sliding_window": 16 if gemma else None,
    }
    if bert:
        keys |= {"attention.layer_norm_epsilon": config.layer_norm_eps, "attention.causal": False}
        words = [token[2:] if token.startswith("##") else f"▁{token}" for token in _BERT_TOKENS[104:]]
        tokenizer = {"model": "bert", "tokens": _SPECIAL + words, "token_type": [3] * 104 + [1] * len(words)}
        tokenizer["token_type_count"] = 2
    else:
        keys |= {"attention.key_length": 16, "attention.value_length": 16, "rope.freq_base": 1e4}
        keys["attention.layer_norm_rms_epsilon"] = config.rms_norm_eps
        tokenizer = {"model": "gpt2", "pre": "qwen2", "tokens": _BYTE_TOKENS, "token_type": [1] * 256 + [3]}
        tokenizer |= {"merges": ["a b"], "eos_token_id": 256, "add_eos_token": True}
    values = {f"{kind}.{name}": value for name, value in keys.items()}
    values |= {f"tokenizer.ggml.{name}": value for name, value in tokenizer.items()}
    architecture = {name: number for number, name in gguf.MODEL_ARCH_NAMES.items()}[kind]
    names = gguf.get_tensor_name_map(architecture, config.num_hidden_layers)
    arrays = {}
    for name, tensor in model.state_dict().items():
        if found := names.get_name(name, (".weight", ".bias")):
            plus = 1.0 if gemma and "norm" in name else 0.0
            arrays[found] = (tensor + plus).numpy().astype(np.float32)
    return write_file(path, kind, values, arrays)
