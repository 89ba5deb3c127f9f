"""Supported architectures: sizes, tensor names and RoPE of a checkpoint, and their counterparts in a GGUF.

Names and configuration keys are those of Hugging Face transformers on one side and llama.cpp on the other.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from gguf import GGUFValueType
from numpy.typing import NDArray

from ...errors import FileError, shorten
from ...files.gguf.header import Field, Header
from ...files.gguf.model_shape import ModelShape, read_model_shape
from ...stats.arrays import Floats
from ..tensors import TensorSpec

ARCHITECTURES = {"LlamaForCausalLM": "llama", "Qwen2ForCausalLM": "qwen2"}
EMBEDDING, OUTPUT = "token_embd.weight", "output.weight"  # the output only if it is not tied
ROPE_FACTORS = "rope_freqs.weight"
_SUPPORTED = f"supported: {', '.join(ARCHITECTURES)}"

# Modules in the order of transformers, which determines the seeds of PEFT's TinyLoRA.
_BEFORE = {"model.embed_tokens": "token_embd"}
_LAYER = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}
_AFTER = {"model.norm": "output_norm", "lm_head": "output"}
INPUTS = {  # matrix -> what it multiplies in a layer: a field of LayerActivations
    "attn_q": "attention_input",
    "attn_k": "attention_input",
    "attn_v": "attention_input",
    "attn_output": "context",
    "ffn_gate": "ffn_input",
    "ffn_up": "ffn_input",
    "ffn_down": "ffn_hidden",
}
_BIASED = ("attn_q", "attn_k", "attn_v")  # in Qwen2


@dataclass(frozen=True)
class Llama3Scaling:
    """RoPE scaling of Llama 3: long wavelengths are stretched by `factor`, short ones are unchanged."""

    factor: float
    low_freq_factor: float
    high_freq_factor: float
    original_context: int


@dataclass(frozen=True)
class Architecture(ModelShape):
    """Sizes and constants of a model.

    Attributes:
        name: one of the values of ARCHITECTURES.
        rms_eps: epsilon of RMSNorm.
        rope_theta: base of the RoPE frequencies.
        scaling: scaling of the RoPE frequencies; None for a GGUF, which stores their factors as a tensor.
        tied: whether the token embedding is also the output matrix.
    """

    name: str
    rms_eps: float
    rope_theta: float
    scaling: Llama3Scaling | None
    tied: bool


def from_config(config: Mapping[str, Any], where: str) -> Architecture:
    """Read the architecture from a checkpoint's config.json; `where` names it in errors.

    Raises:
        FileError: the architecture is not supported, or a value is missing or out of range.
    """
    name = _supported(config, where)
    rope = _rope(config, where)
    tied = config.get("tie_word_embeddings") or False
    if not isinstance(tied, bool):
        raise FileError(f"{where}: tie_word_embeddings is {shorten(tied)}, neither true nor false")
    heads = _count(config, "num_attention_heads", where)
    hidden = _count(config, "hidden_size", where)
    architecture = Architecture(
        layers=_count(config, "num_hidden_layers", where),
        hidden=hidden,
        ffn=_count(config, "intermediate_size", where),
        heads=heads,
        kv_heads=_count(config, "num_key_value_heads", where, heads),
        head_dim=_count(config, "head_dim", where, hidden // heads),
        vocab=_count(config, "vocab_size", where),
        context=_count(config, "max_position_embeddings", where),
        name=name,
        rms_eps=_number(config, "rms_norm_eps", where),
        rope_theta=_number({**config, **rope}, "rope_theta", where, 10000.0),
        scaling=_scaling(rope, where),
        tied=tied,
    )
    architecture.check(where)
    return architecture


def from_header(header: Header) -> Architecture:
    """Read the architecture that a GGUF's metadata describes; its rope factors, if any, stay a tensor.

    Raises:
        FileError: an unsupported architecture, or a value that is missing or out of range.
    """
    where, metadata = str(header.path), header.metadata
    name, kind = str(metadata.get("general.architecture")), metadata.get("general.type", "model")
    if kind != "model":
        raise FileError(f"{where}: general.type is {shorten(kind)}, not 'model'; a GGUF LoRA is an adapter")
    if name not in ARCHITECTURES.values():
        raise FileError(f"{where}: the architecture {shorten(name)} is not supported; {_SUPPORTED}")
    values = {key.removeprefix(f"{name}."): value for key, value in metadata.items()}
    for key, value in values.items():
        if key.startswith("rope.scal") and value != "none":
            raise FileError(f"{where}: {key} is {shorten(value)}: rope scaling of that kind is not supported")
    if ROPE_FACTORS in header.tensors and "rope.freq_base" not in values:
        raise FileError(f"{where}: {ROPE_FACTORS} without {name}.rope.freq_base")
    return Architecture(
        **asdict(read_model_shape(header)),
        name=name,
        rms_eps=_number(values, "attention.layer_norm_rms_epsilon", where),
        rope_theta=_number(values, "rope.freq_base", where, 10000.0),
        scaling=None,
        tied=OUTPUT not in header.tensors,
    )


def tensor_specs(architecture: Architecture) -> dict[str, TensorSpec]:
    """List the tensors of a model by their names in a checkpoint, in transformers' order."""
    a = architecture
    embedding = (a.vocab, a.hidden)
    shapes = {"token_embd": embedding, "output": embedding, **a.layer_matrices}
    # The RoPE layout of Llama: a GGUF has the rows of q and k in another order.
    permuted = {"attn_q": a.heads, "attn_k": a.kv_heads} if a.name == "llama" else {}

    def spec(module: str, target: str, kind: str, part: str) -> TensorSpec:
        shape = shapes.get(kind, (a.hidden,))
        return TensorSpec(
            f"{module}.{part}",
            f"{target}.{part}",
            shape if part == "weight" else shape[:1],
            permuted.get(kind, 0),
        )

    specs = [spec(module, kind, kind, "weight") for module, kind in _BEFORE.items()]
    for layer in range(a.layers):
        for module, kind in _LAYER.items():
            parts = ("weight", "bias") if a.name == "qwen2" and kind in _BIASED else ("weight",)
            specs += [spec(f"model.layers.{layer}.{module}", f"blk.{layer}.{kind}", kind, p) for p in parts]
    after = {module: kind for module, kind in _AFTER.items() if not (a.tied and kind == "output")}
    specs += [spec(module, kind, kind, "weight") for module, kind in after.items()]
    return {spec.source: spec for spec in specs}


def module_order(module: str) -> tuple[int, int] | None:
    """Sort key of a module in transformers' order; None if no supported model has it."""
    layer = re.fullmatch(r"model\.layers\.(\d{1,6})\.(.+)", module)
    if layer:
        return (int(layer[1]), list(_LAYER).index(layer[2])) if layer[2] in _LAYER else None
    return {"model.embed_tokens": (-1, 0), "model.norm": (1 << 20, 0), "lm_head": (1 << 20, 1)}.get(module)


def rope_factors(architecture: Architecture) -> Floats | None:
    """Compute the divisor of each RoPE frequency, (head_dim / 2,); None without scaling.

    The rule is that of Llama 3.1, `_compute_llama3_parameters` in transformers.
    """
    scaling = architecture.scaling
    if scaling is None:
        return None
    exponents = np.arange(0, architecture.head_dim, 2, dtype=np.float32) / architecture.head_dim
    wavelengths = 2 * math.pi * np.float32(architecture.rope_theta) ** exponents
    rotations = scaling.original_context / wavelengths  # within the original context
    low, high = scaling.low_freq_factor, scaling.high_freq_factor
    smooth = np.clip((rotations - low) / (high - low), 0, 1)
    return np.asarray(1 / ((1 - smooth) / scaling.factor + smooth), dtype=np.float32)


def permute(rows: NDArray[Any], heads: int) -> NDArray[Any]:
    """Reorder rows of q or k, (heads * head_dim, …), from transformers' halves to GGUF's pairs."""
    halves = rows.reshape(heads, 2, rows.shape[0] // heads // 2, *rows.shape[1:])
    return halves.swapaxes(1, 2).reshape(rows.shape)


def unpermute(rows: NDArray[Any], heads: int) -> NDArray[Any]:
    """Invert permute()."""
    pairs = rows.reshape(heads, rows.shape[0] // heads // 2, 2, *rows.shape[1:])
    return pairs.swapaxes(1, 2).reshape(rows.shape)


def metadata_fields(architecture: Architecture) -> dict[str, Field]:
    """GGUF metadata from which a loader builds the model."""
    a, u32, f32 = architecture, GGUFValueType.UINT32, GGUFValueType.FLOAT32
    values = {
        "context_length": Field(a.context, u32),
        "embedding_length": Field(a.hidden, u32),
        "block_count": Field(a.layers, u32),
        "feed_forward_length": Field(a.ffn, u32),
        "attention.head_count": Field(a.heads, u32),
        "attention.head_count_kv": Field(a.kv_heads, u32),
        "attention.key_length": Field(a.head_dim, u32),
        "attention.value_length": Field(a.head_dim, u32),
        "attention.layer_norm_rms_epsilon": Field(a.rms_eps, f32),
        "rope.freq_base": Field(a.rope_theta, f32),
        "rope.dimension_count": Field(a.head_dim, u32),
        "vocab_size": Field(a.vocab, u32),
    }
    architecture_fields = {f"{a.name}.{key}": field for key, field in values.items()}
    return {"general.architecture": Field(a.name, GGUFValueType.STRING)} | architecture_fields


def _supported(config: Mapping[str, Any], where: str) -> str:
    names = config.get("architectures")
    name = names[0] if isinstance(names, list) and names else None
    if not isinstance(name, str) or name not in ARCHITECTURES:
        raise FileError(f"{where}: the architecture {shorten(name)} is not supported; {_SUPPORTED}")
    for flag in ("attention_bias", "mlp_bias", "use_sliding_window"):
        if config.get(flag):
            raise FileError(f"{where}: {flag} is true, which is not supported for {name}")
    if config.get("hidden_act", "silu") != "silu":
        raise FileError(f"{where}: hidden_act is {shorten(config['hidden_act'])}; only 'silu' is supported")
    if (weights := config.get("transformers_weights")) is not None:
        raise FileError(f"{where}: transformers_weights is {shorten(weights)}, which is not supported")
    if config.get("quantization_config") is not None:
        raise FileError(f"{where}: the checkpoint is quantized; use its original in BF16, F16 or F32")
    return ARCHITECTURES[name]


def _number(values: Mapping[str, Any], key: str, where: str, default: float | None = None) -> float:
    value = values.get(key, default)
    if value is None:
        value = default
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
        raise FileError(f"{where}: {key} is {shorten(value)}, not a positive number")
    if not 1e-37 < value < 1e38:
        raise FileError(f"{where}: {key} is {shorten(value)}, which is outside the range of float32")
    return value


def _count(values: Mapping[str, Any], key: str, where: str, default: int | None = None) -> int:
    value = _number(values, key, where, default)
    if not isinstance(value, int) or value > 1 << 24:
        raise FileError(f"{where}: {key} is {shorten(value)}, not an integer up to {1 << 24}")
    return value


def _rope(config: Mapping[str, Any], where: str) -> Mapping[str, Any]:
    """Find the RoPE settings, which transformers 5 calls `rope_parameters`."""
    for key in ("rope_scaling", "rope_parameters"):  # the first takes precedence there too
        value = config.get(key) or {}
        if not isinstance(value, Mapping):
            raise FileError(f"{where}: {key} is {shorten(value)}, not an object")
        if value:
            return value
    return {}


def _scaling(rope: Mapping[str, Any], where: str) -> Llama3Scaling | None:
    if _number(rope, "partial_rotary_factor", where, 1.0) != 1:
        raise FileError(f"{where}: only a partial_rotary_factor of 1 is supported")
    kind = rope.get("rope_type", rope.get("type", "default"))
    if kind == "default":
        return None
    if kind != "llama3":
        raise FileError(f"{where}: rope scaling {shorten(kind)} is not supported; supported: default, llama3")
    scaling = Llama3Scaling(
        factor=_number(rope, "factor", where),
        low_freq_factor=_number(rope, "low_freq_factor", where),
        high_freq_factor=_number(rope, "high_freq_factor", where),
        original_context=_count(rope, "original_max_position_embeddings", where),
    )
    if scaling.high_freq_factor <= scaling.low_freq_factor:
        raise FileError(
            f"{where}: high_freq_factor {scaling.high_freq_factor} "
            f"is not above low_freq_factor {scaling.low_freq_factor}"
        )
    return scaling
