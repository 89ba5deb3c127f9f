"""Small random checkpoints of all families, saved by transformers, with a tiny byte-level tokenizer."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import AutoModelForCausalLM, PretrainedConfig
from transformers.models.gemma3 import Gemma3TextConfig
from transformers.models.granite import GraniteConfig
from transformers.models.lfm2 import Lfm2Config
from transformers.models.llama import LlamaConfig
from transformers.models.mistral import MistralConfig
from transformers.models.olmo2 import Olmo2Config
from transformers.models.phi3 import Phi3Config
from transformers.models.qwen2 import Qwen2Config
from transformers.models.qwen3 import Qwen3Config
from transformers.models.smollm3 import SmolLM3Config

from .byte_level import byte_names

WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}%s"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
MERGES = (("t", "h"), ("th", "e"), ("Ġ", "the"), ("i", "n"), ("Ġ", "1"))
CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
VOCAB = 272  # the tokenizer has 264 tokens; the other rows are unused
LLAMA3_ROPE = {
    "rope_type": "llama3",
    "rope_theta": 500000.0,
    "factor": 32.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}


def llama(**changes: Any) -> LlamaConfig:
    """A tiny Llama with heads wider than hidden / heads, and with tied embeddings by default."""
    return LlamaConfig(**(_SHAPE | {"head_dim": 24, "tie_word_embeddings": True} | changes))


def qwen2(**changes: Any) -> Qwen2Config:
    """A tiny Qwen2, with untied embeddings by default."""
    return Qwen2Config(**(_SHAPE | {"tie_word_embeddings": False} | changes))


_SHAPE = {
    "vocab_size": VOCAB,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "bos_token_id": 256,
    "eos_token_id": 258,
}
UNTIED = _SHAPE | {"tie_word_embeddings": False}


def gemma3(**changes: Any) -> Gemma3TextConfig:
    """A tiny Gemma 3 with windows in two layers of three, and RoPE of its own in the third."""
    types = ["sliding_attention", "full_attention", "sliding_attention"]
    rope = {
        "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e6},
        "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
    }
    heads = {"num_hidden_layers": 3, "head_dim": 24, "query_pre_attn_scalar": 24, "sliding_window": 20}
    return Gemma3TextConfig(**(_SHAPE | heads | {"layer_types": types, "rope_parameters": rope} | changes))


def granite(**changes: Any) -> GraniteConfig:
    """A tiny Granite with all four scales and biases."""
    scales = {"embedding_multiplier": 3.0, "residual_multiplier": 0.4, "attention_multiplier": 0.2}
    biases = {"attention_bias": True, "mlp_bias": True}
    return GraniteConfig(**(UNTIED | scales | biases | {"logits_scaling": 2.5} | changes))


def phi3(**changes: Any) -> Phi3Config:
    """A tiny Phi-3 with LongRoPE in 12 of 16 dimensions."""
    rope = {
        "rope_type": "longrope",
        "rope_theta": 10000.0,
        "partial_rotary_factor": 0.75,
        "short_factor": [1.0, 1.1, 1.3, 1.5, 1.8, 2.0],
        "long_factor": [1.0, 1.5, 2.0, 3.0, 4.0, 6.0],
    }
    shape: dict[str, Any] = {
        "max_position_embeddings": 1024,
        "original_max_position_embeddings": 256,
        "pad_token_id": 0,
    }
    shape["rope_parameters"] = rope
    return Phi3Config(**(UNTIED | shape | changes))


def lfm2(**changes: Any) -> Lfm2Config:
    """A tiny LFM2: convolutions in the first and third layer, attention in the second."""
    types = {"num_hidden_layers": 3, "layer_types": ["conv", "full_attention", "conv"]}
    return Lfm2Config(**(_SHAPE | types | {"block_multiple_of": 32, "pad_token_id": 0} | changes))


def smollm3(**changes: Any) -> SmolLM3Config:
    """A tiny SmolLM3, whose last layer has no RoPE."""
    return SmolLM3Config(**(_SHAPE | {"num_hidden_layers": 4, "pad_token_id": 0} | changes))


FAMILIES: dict[str, Callable[[], PretrainedConfig]] = {
    "llama": llama,
    "llama with biases": lambda: llama(attention_bias=True, mlp_bias=True, tie_word_embeddings=False),
    "mistral": lambda: MistralConfig(**UNTIED, head_dim=24, sliding_window=192),
    "qwen2": qwen2,
    "qwen3": lambda: Qwen3Config(**UNTIED, head_dim=24),
    "gemma3": gemma3,
    "smollm3": smollm3,
    "granite": granite,
    "phi3": phi3,
    "olmo2": lambda: Olmo2Config(**UNTIED),
    "lfm2": lfm2,
}


def save_model(
    folder: Path,
    config: PretrainedConfig,
    dtype: torch.dtype = torch.float32,
    shard: str = "1GB",
    rules: str = "",
    spread: float = 0.3,
) -> Path:
    """Save a model with random weights, biases and norms, in shards of at most the given size."""
    with torch.random.fork_rng():
        torch.manual_seed(13)
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
        for name, parameter in model.named_parameters():
            if parameter.ndim == 1:
                torch.nn.init.normal_(parameter, mean=float("norm" in name), std=0.3)
            else:
                torch.nn.init.normal_(parameter, std=spread)
    model.to(dtype).save_pretrained(folder, max_shard_size=shard)
    save_tokenizer(folder, rules or ("qwen" if config.model_type.startswith("qwen") else "llama"))
    return folder


def save_tokenizer(folder: Path, rules: str = "llama") -> Path:
    """Save a byte-level tokenizer with the splitting rules of `llama` (3), `smollm` or `qwen`."""
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=rules == "smollm")
    first = {
        "llama": pre_tokenizers.Split(Regex(WORDS % "{1,3}"), "isolated"),
        "smollm": pre_tokenizers.Digits(individual_digits=True),
        "qwen": pre_tokenizers.Split(Regex(WORDS % ""), "isolated"),
    }[rules]
    tokens = [*byte_names(), *SPECIAL, *("".join(merge) for merge in MERGES)]
    vocab = {token: i for i, token in enumerate(tokens)}
    tokenizer = Tokenizer(models.BPE(vocab, list(MERGES), ignore_merges=rules == "llama"))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([first, byte_level])
    tokenizer.decoder = decoders.ByteLevel()
    if rules == "qwen":
        tokenizer.normalizer = normalizers.NFC()
    tokenizer.add_special_tokens(list(SPECIAL))
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": SPECIAL[0],
        "eos_token": SPECIAL[2],
        "pad_token": SPECIAL[0],
        "chat_template": CHAT_TEMPLATE,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return folder
