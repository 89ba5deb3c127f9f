"""A configuration or metadata of a supported model is read; what llama.cpp does not compute is refused."""

from pathlib import Path
from typing import Any

import pytest
from gguf import GGUFValueType
from thirteen.convert.source.architecture import Architecture
from thirteen.convert.source.families import CLASSES
from thirteen.convert.source.model_config import from_config
from thirteen.convert.source.model_metadata import from_header, metadata_fields
from thirteen.errors import FileError
from thirteen.files.gguf.header import Field, Header

from ... import checkpoints
from ...refusals import refused

U32, F32, TEXT = GGUFValueType.UINT32, GGUFValueType.FLOAT32, GGUFValueType.STRING
ARRAY, BOOL = GGUFValueType.ARRAY, GGUFValueType.BOOL

SCALING = checkpoints.LLAMA3_ROPE | {"original_max_position_embeddings": 8192}
LLAMA_1B: dict[str, Any] = {
    **{"architectures": ["LlamaForCausalLM"], "hidden_act": "silu", "rms_norm_eps": 1e-05},
    **{"hidden_size": 2048, "intermediate_size": 8192, "head_dim": 64, "vocab_size": 128256},
    **{"num_hidden_layers": 16, "num_attention_heads": 32, "num_key_value_heads": 8},
    **{"attention_bias": False, "mlp_bias": False, "tie_word_embeddings": True},
    **{"max_position_embeddings": 131072, "rope_theta": 500000.0, "rope_scaling": SCALING},
}


def read(config: dict[str, Any]) -> Architecture:
    return from_config(config, "config.json")


def config_of(name: str) -> dict[str, Any]:
    """The configuration of Llama 3.2 1B, or of a tiny model of another family."""
    if name == "llama":
        return LLAMA_1B
    kind = next(kind for kind, family in CLASSES.items() if family.name == name)
    return checkpoints.FAMILIES[name]().to_dict() | {"architectures": [kind]}


def header(architecture: Architecture, changes: dict[str, Field | None] | None = None) -> Header:
    """The header of a GGUF without tensors; a field that is None is left out."""
    fields: dict[str, Field | None] = {
        "general.architecture": Field("llama", TEXT),
        "tokenizer.ggml.tokens": Field(["x"] * architecture.vocab, ARRAY, TEXT),
        **metadata_fields(architecture),
        **(changes or {}),
    }
    return Header(Path("a.gguf"), 3, {k: field for k, field in fields.items() if field}, {}, 0)


def test_published_config_of_llama_3_2_is_read():
    architecture = read(LLAMA_1B)
    assert (architecture.layers, architecture.kv_heads, architecture.head_dim) == (16, 8, 64)
    assert (architecture.rope_theta, architecture.tied) == (500000.0, True)
    assert set(architecture.divisors["rope_freqs.weight"]) >= {1.0, 32.0}
    # transformers 5 has theta and scaling in one object
    newer = {k: v for k, v in LLAMA_1B.items() if not k.startswith("rope")}
    newer["rope_parameters"] = SCALING
    assert read(newer) == architecture


def test_missing_values_have_the_defaults_of_transformers():
    optional = ("head_dim", "num_key_value_heads", "rope_theta", "rope_scaling", "tie_word_embeddings")
    architecture = read({k: v for k, v in LLAMA_1B.items() if k not in optional})
    assert (architecture.head_dim, architecture.kv_heads, architecture.rope_theta) == (64, 32, 10000.0)
    assert (architecture.rope_tensors, architecture.tied) == ({}, False)


LONGROPE = {
    **{"rope_type": "longrope", "original_max_position_embeddings": 9},
    **{"long_factor": [1.0] * 32, "short_factor": [1.0] * 32},
}
LINEAR_WINDOW = {"full_attention": {}, "sliding_attention": {"rope_type": "linear"}}


@pytest.mark.parametrize(
    ("name", "changes", "named"),
    [
        ("llama", {"architectures": ["Qwen3MoeForCausalLM"]}, "Qwen3MoeForCausalLM' cannot be converted"),
        ("llama", {"quantization_config": {"bits": 4}}, "use the original in BF16, F16 or F32"),
        ("llama", {"rope_scaling": "llama3"}, "unexpected layout"),
        ("llama", {"attn_logit_softcapping": 50.0}, "attn_logit_softcapping"),
        ("llama", {"no_rope_layers": [0] + [1] * 15}, "unrotated"),
        ("llama", {"layer_types": ["linear_attention"] * 16}, "layer_types"),
        ("llama", {"rope_scaling": LONGROPE}, "rope scaling is longrope, which llama.cpp's llama"),
        ("llama", {"residual_multiplier": 2.0}, "residual_scale"),
        ("llama", {"hidden_act": "gelu"}, "gelu"),
        ("llama", {"head_dim": 63}, "even"),
        ("llama", {"num_key_value_heads": 5}, "32 heads"),
        ("llama", {"rms_norm_eps": float("nan")}, "rms_norm_eps"),
        ("llama", {"rope_scaling": {"type": "yarn"}, "rope_parameters": {"rope_type": "default"}}, "yarn"),
        ("gemma3", {"rope_parameters": LINEAR_WINDOW}, "rope_type of sliding_attention is 'linear'"),
        ("gemma3", {"query_pre_attn_scalar": 100}, "scale of attention is 0.1"),
        ("lfm2", {"conv_bias": True}, "conv_bias"),
        ("phi3", {"rope_parameters": None, "partial_rotary_factor": 0.3125}, "rotates 5 of 16"),
        ("smollm3", {"no_rope_layers": [1] * 4}, "unrotated is (), which llama.cpp's smollm3"),
        ("olmo2", {"tie_word_embeddings": True}, "tie_word_embeddings"),
    ],
)
def test_an_unsupported_config_is_named(name, changes, named):
    with refused("config.json: ", named, FileError):
        read(config_of(name) | changes)


@pytest.mark.parametrize(
    ("type_", "key", "factor", "expected"),
    [
        (None, "scaling.factor", 4.0, 4.0),
        ("none", "scaling.factor", 4.0, 1.0),
        (None, "scaling.factor", 0.0, 1.0),
        (None, "scale_linear", 4.0, 4.0),
    ],
)
def test_linear_scaling_is_that_of_llama_cpp(type_, key, factor, expected):
    """A file with the type none was written as one that scales, and the old key was passed over."""
    changes = {f"llama.rope.{key}": Field(factor, F32)}
    changes |= {"llama.rope.scaling.type": Field(type_, TEXT)} if type_ else {}
    assert from_header(header(read(LLAMA_1B), changes)).rope_linear == expected


@pytest.mark.parametrize(
    ("name", "key", "field", "named"),
    [
        ("llama", "general.architecture", Field("mamba", TEXT), "mamba"),
        ("llama", "llama.rope.scaling.type", Field("yarn", TEXT), "yarn"),
        ("llama", "llama.attention.head_count", Field([4, 4], ARRAY, U32), "attention.head_count"),
        ("llama", "llama.block_count", None, "block_count"),
        ("llama", "llama.rope.freq_base", Field(float("inf"), F32), "rope.freq_base"),
        ("llama", "llama.attention.causal", Field(False, BOOL), "llama.attention.causal is False"),
        ("llama", "llama.rope.scaling.attn_factor", Field(2.0, F32), "scaling.attn_factor is 2.0"),
        ("gemma3", "gemma3.attention.sliding_window", Field(16.5, F32), "sliding_window' is not a number"),
        ("lfm2", "lfm2.attention.head_count_kv", Field([0, 2], ARRAY, U32), "head_count_kv' is not a number"),
        ("phi3", "phi3.rope.dimension_count", Field(24, U32), "rope.dimension_count rotates 24 of 16"),
    ],
)
def test_unsupported_metadata_is_named(name, key, field, named):
    """Some were tracebacks, or made a file that no loader can run."""
    architecture = read(config_of(name))
    from_header(header(architecture, {"llama.attention.causal": Field(True, BOOL)}))
    with refused("a.gguf: ", named, FileError):
        from_header(header(architecture, {key: field}))
