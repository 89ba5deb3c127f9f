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

_WORDS = ("the", "cat", "dog", "sat", "mat", "on", "ran", "eggs", "how", "many", "she", "have", "is", "red")
_LETTERS = [chr(97 + n) for n in range(26)]
# As in BERT's own files: pad is 0, and unknown, cls, sep and mask are 100 to 103.
_BERT_TOKENS = [
    *("[PAD]", *(f"[unused{n}]" for n in range(99)), "[UNK]", "[CLS]", "[SEP]", "[MASK]"),
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


def tokenizer_of(kind: str) -> Tokenizer:
    """The tokenizer that transformers would use; all but bert's are byte-level."""
    return _bert_tokenizer() if kind == "bert" else _byte_tokenizer()


def oracle(kind: str, pooling: str, tokens: Sequence[Sequence[int]]) -> np.ndarray:
    """Embeddings as sentence-transformers documents them: pooled, and normalized to a length of 1."""
    model, rows = random_model(kind), []
    for text in tokens:
        with torch.no_grad():
            hidden = model(torch.tensor([text])).last_hidden_state[0]  # (tokens, width)
        row = {"cls": hidden[0], "lasttoken": hidden[-1], "mean": hidden.mean(0)}[pooling]
        rows.append((row / row.norm()).numpy())
    return np.stack(rows)


def _bert_tokenizer() -> Tokenizer:
    vocab = {token: number for number, token in enumerate(_BERT_TOKENS)}
    tokenizer = Tokenizer(models.WordPiece(vocab, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    ends = [("[CLS]", vocab["[CLS]"]), ("[SEP]", vocab["[SEP]"])]
    tokenizer.post_processor = processors.TemplateProcessing(single="[CLS] $0 [SEP]", special_tokens=ends)
    return tokenizer


def _byte_tokenizer() -> Tokenizer:
    vocab = {token: number for number, token in enumerate(_BYTE_TOKENS)}
    tokenizer = Tokenizer(models.BPE(vocab, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    ends = [(_END, vocab[_END])]
    tokenizer.post_processor = processors.TemplateProcessing(single=f"$0 {_END}", special_tokens=ends)
    return tokenizer


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
            rope = {"rope_type": "default", "rope_theta": 1e4}
            own: dict[str, Any] = {"use_bidirectional_attention": True, "query_pre_attn_scalar": 16}
            own |= {"layer_types": ["sliding_attention"] * 5 + ["full_attention"], "num_hidden_layers": 6}
            own["sliding_window"] = 16  # 8 on each side
            own["rope_parameters"] = {"sliding_attention": rope, "full_attention": rope}
            model = Gemma3TextModel(Gemma3TextConfig(vocab_size=len(_BYTE_TOKENS), **_SHAPE | own))
        for name, parameter in model.named_parameters():
            norm = "norm" in name.lower() and name.endswith("weight") and kind != "gemma-embedding"
            torch.nn.init.normal_(parameter, mean=float(norm), std=0.3)
    model.eval()
    return model


def write_embedder(path: Path, kind: str, pooling: str | None) -> Path:
    """Write random_model(kind) as GGUF: bert, qwen3 or gemma-embedding."""
    writer = gguf.GGUFWriter(path, kind)
    config: Any = random_model(kind).config
    for key, value in {
        **{"context_length": CONTEXT, "embedding_length": 64, "feed_forward_length": 96},
        "block_count": config.num_hidden_layers,
        **{"attention.head_count": 4, "attention.head_count_kv": 4 if kind == "bert" else 2},
        **({} if kind == "bert" else {"attention.key_length": 16, "attention.value_length": 16}),
        **({} if pooling is None else {"pooling_type": POOLINGS[pooling]}),
        **({"attention.sliding_window": 16} if kind == "gemma-embedding" else {}),
    }.items():
        writer.add_uint32(f"{kind}.{key}", value)
    _write_rest(writer, kind, config)
    names = gguf.get_tensor_name_map(
        {v: k for k, v in gguf.MODEL_ARCH_NAMES.items()}[kind], config.num_hidden_layers
    )
    for name, tensor in random_model(kind).state_dict().items():
        if found := names.get_name(name, (".weight", ".bias")):
            plus = 1.0 if kind == "gemma-embedding" and "norm" in name else 0.0
            writer.add_tensor(found, (tensor + plus).numpy().astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _write_rest(writer: gguf.GGUFWriter, kind: str, config: Any) -> None:
    if kind == "bert":
        writer.add_layer_norm_eps(config.layer_norm_eps)
        writer.add_causal_attention(False)
        writer.add_token_type_count(2)
        special = {*_BERT_TOKENS[:104]}
        tokens = [
            token if token in special else token[2:] if token.startswith("##") else f"▁{token}"
            for token in _BERT_TOKENS
        ]
        writer.add_tokenizer_model("bert")
        writer.add_token_list(tokens)
        writer.add_token_types([3 if token in special else 1 for token in _BERT_TOKENS])
        return
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    rope = config.rope_parameters
    writer.add_rope_freq_base((rope.get("full_attention") or rope)["rope_theta"])
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2")
    writer.add_token_list(_BYTE_TOKENS)
    writer.add_token_types([1] * 256 + [3])
    writer.add_token_merges(["a b"])
    writer.add_eos_token_id(256)
    writer.add_add_eos_token(True)
