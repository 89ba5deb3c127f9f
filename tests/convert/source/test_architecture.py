"""Names, shapes, order and RoPE factors equal those of transformers and llama.cpp."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gguf import GGUFValueType
from thirteen.convert.source import architecture as arch
from thirteen.convert.source import model_config
from thirteen.convert.source.families import CLASSES
from thirteen.convert.source.model_config import from_config
from thirteen.convert.source.model_metadata import from_header
from thirteen.errors import FileError
from thirteen.files.gguf.header import Field, Header
from transformers import AutoModelForCausalLM, PretrainedConfig
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from ... import checkpoints
from ...refusals import refused
from ..peft_adapters import llama_cpp_permute

U32, F32, TEXT = GGUFValueType.UINT32, GGUFValueType.FLOAT32, GGUFValueType.STRING
ARRAY, BOOL = GGUFValueType.ARRAY, GGUFValueType.BOOL

LLAMA_1B = {
    "architectures": ["LlamaForCausalLM"],
    "attention_bias": False,
    "head_dim": 64,
    "hidden_act": "silu",
    "hidden_size": 2048,
    "intermediate_size": 8192,
    "max_position_embeddings": 131072,
    "mlp_bias": False,
    "num_attention_heads": 32,
    "num_hidden_layers": 16,
    "num_key_value_heads": 8,
    "rms_norm_eps": 1e-05,
    "rope_scaling": {
        "factor": 32.0,
        "high_freq_factor": 4.0,
        "low_freq_factor": 1.0,
        "original_max_position_embeddings": 8192,
        "rope_type": "llama3",
    },
    "rope_theta": 500000.0,
    "tie_word_embeddings": True,
    "vocab_size": 128256,
}


def read(config: dict[str, Any]) -> arch.Architecture:
    return from_config(config, "config.json")


def header(architecture: arch.Architecture, changes: dict[str, Field | None] | None = None) -> Header:
    """The header of a GGUF without tensors; a field that is None is left out."""
    fields: dict[str, Field | None] = {
        "general.architecture": Field("llama", TEXT),
        "tokenizer.ggml.tokens": Field(["x"] * architecture.vocab, ARRAY, TEXT),
        **arch.metadata_fields(architecture),
        **(changes or {}),
    }
    return Header(Path("a.gguf"), 3, {k: field for k, field in fields.items() if field}, {}, 0)


def from_transformers(config: PretrainedConfig) -> tuple[arch.Architecture, Any]:
    model = AutoModelForCausalLM.from_config(config)
    return read(config.to_dict() | {"architectures": [type(model).__name__]}), model


@pytest.mark.parametrize("shape", [(24, 5), (24,), (96, 3)])
def test_permute_equals_llama_cpps_and_is_invertible(shape):
    rows = np.arange(np.prod(shape)).reshape(shape)
    for heads in (1, 2, 4):
        permuted = arch.permute(rows, heads)
        np.testing.assert_array_equal(permuted, llama_cpp_permute(rows, heads))
        np.testing.assert_array_equal(arch.unpermute(permuted, heads), rows)
    assert not np.array_equal(arch.permute(rows, 2), rows)
    half = len(rows) // 2
    np.testing.assert_array_equal(arch.permute(rows, 4)[:half], arch.permute(rows[:half], 2))


def test_only_q_and_k_of_llama_are_permuted():
    for config, permuted in ((checkpoints.llama(), {"q_proj", "k_proj"}), (checkpoints.qwen2(), set())):
        architecture, _ = from_transformers(config)
        found = {s.source.split(".")[-2] for s in arch.tensor_specs(architecture).values() if s.heads}
        assert found == permuted


@pytest.mark.parametrize(("head_dim", "theta", "factor", "context"), [
    (64, 500000.0, 32.0, 8192),  # Llama 3.2
    (24, 10000.0, 4.0, 64),
])  # fmt: skip
def test_rope_factors_equal_transformers(head_dim, theta, factor, context):
    rope = checkpoints.LLAMA3_ROPE | {
        "rope_theta": theta,
        "factor": factor,
        "original_max_position_embeddings": context,
    }
    config = checkpoints.llama(head_dim=head_dim, rope_parameters=rope)
    scaled, _ = ROPE_INIT_FUNCTIONS["llama3"](config, torch.device("cpu"))
    plain = 1.0 / theta ** (torch.arange(0, head_dim, 2).float() / head_dim)
    architecture, _ = from_transformers(config)
    factors = architecture.rope_tensors["rope_freqs.weight"]
    assert factors.dtype == np.float32
    np.testing.assert_allclose(factors, plain / scaled, rtol=2e-6)
    assert factors[0] == 1
    assert factors[-1] == pytest.approx(factor)


def test_published_config_of_llama_3_2_is_read():
    architecture = read(LLAMA_1B)
    assert (architecture.layers, architecture.kv_heads, architecture.head_dim) == (16, 8, 64)
    assert (architecture.rope_theta, architecture.tied) == (500000.0, True)
    assert architecture.scaling == arch.Llama3Scaling(32.0, 1.0, 4.0, 8192)
    # transformers 5 has theta and scaling in one object
    newer = {k: v for k, v in LLAMA_1B.items() if not k.startswith("rope")}
    newer["rope_parameters"] = LLAMA_1B["rope_scaling"] | {"rope_theta": 500000.0}
    assert read(newer) == architecture


def test_missing_values_have_the_defaults_of_transformers():
    optional = ("head_dim", "num_key_value_heads", "rope_theta", "rope_scaling", "tie_word_embeddings")
    architecture = read({k: v for k, v in LLAMA_1B.items() if k not in optional})
    assert (architecture.head_dim, architecture.kv_heads, architecture.rope_theta) == (64, 32, 10000.0)
    assert (architecture.scaling, architecture.tied) == (None, False)
    assert not architecture.rope_tensors


@pytest.mark.parametrize(
    "config",
    [
        LLAMA_1B | {"rope_scaling": None},
        LLAMA_1B | {"head_dim": 128},
        LLAMA_1B | {"rope_scaling": {"type": "linear", "factor": 4.0}},
    ],
)
def test_metadata_is_read_back(config):
    architecture = read(config)
    again = from_header(header(architecture))
    assert again == arch.Architecture(**(vars(architecture) | {"scaling": None}))


def rope(**changes: Any) -> dict[str, Any]:
    return {"rope_scaling": LLAMA_1B["rope_scaling"] | changes}


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"architectures": ["MambaForCausalLM"]}, "LlamaForCausalLM, MistralForCausalLM"),
        ({"architectures": "LlamaForCausalLM"}, "None"),
        ({"architectures": ["Qwen3MoeForCausalLM"]}, "Qwen3MoeForCausalLM' cannot be converted"),
        ({"architectures": ["Qwen2ForCausalLM"], "attention_bias": True}, "attention_bias"),
        ({"attn_logit_softcapping": 50.0}, "attn_logit_softcapping"),
        ({"new_norm_scale": 2.0}, "new_norm_scale"),
        ({"no_rope_layers": [0] + [1] * 15}, "unrotated"),
        ({"layer_types": ["linear_attention"] * 16}, "layer_types"),
        ({"layer_types": ["full_attention"]}, "layer_types"),
        ({"rope_scaling": {"rope_type": "longrope", "original_max_position_embeddings": 9}}, "long_factor"),
        (
            {
                "rope_scaling": {
                    "rope_type": "longrope",
                    "original_max_position_embeddings": 9,
                    "long_factor": [1.0] * 32,
                    "short_factor": [1.0] * 32,
                }
            },
            "rope scaling is longrope, which llama.cpp's llama does not read",
        ),
        ({"residual_multiplier": 2.0}, "residual_scale"),
        ({"use_sliding_window": True}, "use_sliding_window"),
        ({"hidden_act": "gelu"}, "gelu"),
        ({"quantization_config": {"bits": 4}}, "quantized"),
        ({"num_hidden_layers": 0}, "num_hidden_layers"),
        ({"num_hidden_layers": 10**9}, "num_hidden_layers"),
        ({"hidden_size": "2048"}, "hidden_size"),
        ({"hidden_size": 16, "head_dim": None}, "head_dim"),
        ({"head_dim": 63}, "even"),
        ({"num_key_value_heads": 5}, "32 heads"),
        ({"rms_norm_eps": float("nan")}, "rms_norm_eps"),
        ({"rope_theta": 1e300}, "rope_theta"),
        ({"rope_scaling": "llama3"}, "rope_scaling"),
        ({"rope_scaling": {"type": "yarn"}, "rope_parameters": {"rope_type": "default"}}, "yarn"),
        ({"transformers_weights": "other.safetensors"}, "transformers_weights"),
        (rope(rope_type="yarn"), "yarn"),
        (rope(factor=0), "factor"),
        (rope(low_freq_factor=4.0), "low_freq_factor"),
        (rope(partial_rotary_factor=0.5), "partial_rotary_factor"),
    ],
)
def test_unsupported_config_is_named(changes, named):
    with refused("config.json: ", named, FileError):
        read(LLAMA_1B | changes)


@pytest.mark.parametrize(
    ("name", "changes", "named"),
    [
        ("gemma3", {"sliding_window_pattern": "x", "layer_types": None}, "not a config of gemma3"),
        ("gemma3", {"rope_parameters": {"full_attention": 3}}, "rope_parameters is 3"),
        (
            "gemma3",
            {"rope_parameters": {"full_attention": {}, "sliding_attention": {"rope_type": "linear"}}},
            "not a config of gemma3: .*rope_type of sliding_attention is 'linear'",
        ),
        (
            "gemma3",
            {"rope_parameters": {"full_attention": checkpoints.LLAMA3_ROPE}},
            "rope scaling is llama3, which llama.cpp's gemma3",
        ),
        ("gemma3", {"query_pre_attn_scalar": 100}, "scale of attention is 0.1"),
        ("lfm2", {"block_multiple_of": 0}, "not a config of lfm2"),
        ("lfm2", {"block_ffn_dim_multiplier": "q"}, "not a config of lfm2"),
        ("lfm2", {"conv_bias": True}, "conv_bias"),
        ("phi3", {"rope_parameters": {"rope_type": "longrope", "long_factor": [1.0]}}, "long_factor"),
        ("phi3", {"rope_parameters": None, "partial_rotary_factor": 0.3125}, "rotates 5 of 16"),
        ("phi3", {"rope_parameters": None, "partial_rotary_factor": 0.01}, "rotates 0 of 16"),
        ("phi3", {"rope_parameters": None, "partial_rotary_factor": 1.5}, "rotates 24 of 16"),
        ("smollm3", {"no_rope_layers": [1] * 4}, r"unrotated is \(\), which llama.cpp's smollm3"),
        ("granite", {"logits_scaling": 0}, "logits_scaling"),
        ("olmo2", {"tie_word_embeddings": True}, "tie_word_embeddings"),
    ],
)
def test_what_a_family_cannot_have_is_named(name, changes, named):
    config = checkpoints.FAMILIES[name]()
    kind = next(kind for kind, family in CLASSES.items() if family.name == name)
    with pytest.raises(FileError, match=named):
        read(config.to_dict() | {"architectures": [kind]} | changes)


@pytest.mark.parametrize("name", ["qwen2", "qwen3", "smollm3", "olmo2", "lfm2", "phi3"])
def test_a_scaling_that_the_graph_does_not_read_is_named(name):
    """Its divisors were written, and no loader took the file."""
    kind = next(kind for kind, family in CLASSES.items() if family.name == name)
    config = checkpoints.FAMILIES[name]().to_dict() | {"architectures": [kind]}
    with pytest.raises(FileError, match=f"rope scaling is llama3, which llama.cpp's {name} does not read"):
        read(config | {"rope_parameters": checkpoints.LLAMA3_ROPE})


@pytest.mark.parametrize("name", checkpoints.FAMILIES)
def test_every_key_of_a_class_that_may_change_the_computation_is_known(name):
    """A newer transformers may have one more."""
    keys = checkpoints.FAMILIES[name]().to_dict()
    read(
        keys
        | {
            "architectures": [
                next(kind for kind in CLASSES if kind.lower().startswith(name.split(maxsplit=1)[0]))
            ]
        }
    )
    changing = {
        key for key in keys if key[0] != "_" and any(word in key.lower() for word in model_config._WORDS)
    }
    assert not changing - model_config._KNOWN - set(model_config._REFUSED)


@pytest.mark.parametrize(
    ("type_", "key", "factor", "expected"),
    [
        (None, "scaling.factor", 4.0, 4.0),
        ("linear", "scaling.factor", 4.0, 4.0),
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
    ("changes", "named"),
    [
        ({"general.architecture": Field("mamba", TEXT)}, "mamba"),
        ({"llama.rope.scaling.type": Field("yarn", TEXT)}, "yarn"),
        ({"llama.rope.scaling.factor": Field(-4.0, F32)}, "rope.scaling.factor"),
        ({"llama.rope.dimension_count": Field(32, U32)}, "rope.dimension_count"),
        ({"llama.attention.value_length": Field(32, U32)}, "attention.value_length"),
        ({"llama.attention.head_count": Field([4, 4], ARRAY, U32)}, "attention.head_count"),
        ({"llama.block_count": None}, "block_count"),
        ({"llama.block_count": Field(513, U32)}, "block_count"),
        ({"llama.rope.freq_base": Field(float("inf"), F32)}, "rope.freq_base"),
        ({"llama.attention.causal": Field(False, BOOL)}, "llama.attention.causal is False"),
        ({"llama.pooling_type": Field(3, U32)}, "llama.pooling_type is 3"),
        ({"llama.rope.scaling.attn_factor": Field(2.0, F32)}, "llama.rope.scaling.attn_factor is 2.0"),
    ],
)
def test_unsupported_metadata_is_named(changes, named):
    from_header(header(read(LLAMA_1B)))
    with refused("a.gguf: ", named, FileError):
        from_header(header(read(LLAMA_1B), changes))


def test_metadata_that_changes_nothing_is_passed_over():
    neutral = {"attention.causal": Field(True, BOOL), "pooling_type": Field(0, U32)}
    neutral["rope.scaling.attn_factor"] = Field(1.0, F32)
    changes = {f"llama.{key}": field for key, field in neutral.items()}
    assert from_header(header(read(LLAMA_1B), changes)) == from_header(header(read(LLAMA_1B)))


@pytest.mark.parametrize(
    ("name", "key", "field", "named"),
    [
        ("gemma3", "attention.sliding_window", Field(16.5, F32), "sliding_window' is of type FLOAT32"),
        ("lfm2", "attention.head_count_kv", Field(["a"] * 3, ARRAY, TEXT), "head_count_kv"),
        ("lfm2", "attention.head_count_kv", Field([0, 2], ARRAY, U32), "head_count_kv is .0, 2., which"),
        ("lfm2", "attention.head_count_kv", Field([0, 2, 4], ARRAY, U32), "head_count_kv"),
        ("phi3", "rope.dimension_count", Field(5, U32), "rope.dimension_count rotates 5 of 16"),
        ("phi3", "rope.dimension_count", Field(24, U32), "rope.dimension_count rotates 24 of 16"),
    ],
)
def test_values_that_the_model_cannot_have_are_named(name, key, field, named):
    """They were tracebacks, or made a file that no loader can run."""
    config = checkpoints.FAMILIES[name]().to_dict()
    kind = next(kind for kind, family in CLASSES.items() if family.name == name)
    read_back = header(read(config | {"architectures": [kind]}), {f"{name}.{key}": field})
    with pytest.raises(FileError, match=named):
        from_header(read_back)
