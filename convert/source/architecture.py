"""What is known of each architecture: its shapes, and its names in a checkpoint and in a GGUF.

The names and keys are llama.cpp's; the checkpoint side is Hugging Face transformers'.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from gguf import GGUFValueType
from numpy.typing import NDArray

from ...errors import CheckpointError
from ...files.gguf_header import Field
from ..tensors import TensorSpec

ARCHITECTURES = {"LlamaForCausalLM": "llama", "Qwen2ForCausalLM": "qwen2"}
EMBEDDING, OUTPUT = "token_embd.weight", "output.weight"  # the latter only where they are not tied
MAX_LAYERS = 512  # llama.cpp's own bound

# Module names in transformers' own order of modules, to which PEFT's TinyLoRA ties its seeds.
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
_BIASED = ("attn_q", "attn_k", "attn_v")  # in Qwen2


@dataclass(frozen=True)
class Llama3Scaling:
    """Llama 3's rope scaling: long wavelengths are stretched by `factor`, short ones are kept."""

    factor: float
    low_freq_factor: float
    high_freq_factor: float
    original_context: int


@dataclass(frozen=True)
class Architecture:
    """The shapes and constants of one model."""

    name: str  # as in ARCHITECTURES' values
    layers: int
    hidden: int
    ffn: int
    heads: int
    kv_heads: int
    head_dim: int
    vocab: int
    context: int
    rms_eps: float
    rope_theta: float
    scaling: Llama3Scaling | None
    tied: bool

    @property
    def permuted(self) -> bool:
        """Whether q and k rows lie in another order in a GGUF: Llama's rotary layout does, Qwen2's not."""
        return self.name == "llama"


def from_config(config: Mapping[str, Any], where: str) -> Architecture:
    """The architecture that a checkpoint's config.json describes.

    Raises:
        CheckpointError: an unsupported architecture, or a value that is missing or out of range.
    """
    name = _supported(config, where)
    rope = _rope(config, where)
    tied = config.get("tie_word_embeddings") or False
    if not isinstance(tied, bool):
        raise CheckpointError(f"{where}: tie_word_embeddings is {tied!r}, neither true nor false")
    heads = _count(config, "num_attention_heads", where)
    hidden = _count(config, "hidden_size", where)
    return _checked(
        Architecture(
            name=name,
            layers=_count(config, "num_hidden_layers", where),
            hidden=hidden,
            ffn=_count(config, "intermediate_size", where),
            heads=heads,
            kv_heads=_count(config, "num_key_value_heads", where, heads),
            head_dim=_count(config, "head_dim", where, hidden // heads),
            vocab=_count(config, "vocab_size", where),
            context=_count(config, "max_position_embeddings", where),
            rms_eps=_number(config, "rms_norm_eps", where),
            rope_theta=_number({**config, **rope}, "rope_theta", where, 10000.0),
            scaling=_scaling(rope, where),
            tied=tied,
        ),
        where,
    )


def from_metadata(metadata: Mapping[str, Any], tied: bool, stretched: bool, where: str) -> Architecture:
    """The architecture that a GGUF's metadata describes; its rope factors, if any, stay a tensor."""
    name, kind = str(metadata.get("general.architecture")), metadata.get("general.type", "model")
    if kind != "model":
        raise CheckpointError(f"{where}: general.type is {kind!r}, not 'model'")
    if name not in ARCHITECTURES.values():
        raise CheckpointError(f"{where}: the architecture {name!r} is not supported; {_list_supported()}")
    values = {key.removeprefix(f"{name}."): value for key, value in metadata.items()}
    for key, value in values.items():
        if key.startswith("rope.scal") and value != "none":
            raise CheckpointError(
                f"{where}: {key} is {_short(value)}: rope scaling of that kind is not supported"
            )
    if stretched and "rope.freq_base" not in values:
        raise CheckpointError(f"{where}: rope_freqs.weight without {name}.rope.freq_base")
    heads, hidden = _count(values, "attention.head_count", where), _count(values, "embedding_length", where)
    tokens = metadata.get("tokenizer.ggml.tokens", [])
    if not isinstance(tokens, list):
        raise CheckpointError(f"{where}: tokenizer.ggml.tokens is {tokens!r}, not a list")
    head_dim = _count(values, "attention.key_length", where, hidden // heads)
    for key in ("attention.value_length", "rope.dimension_count"):
        if values.get(key, head_dim) != head_dim:
            raise CheckpointError(f"{where}: {key} is {values[key]!r}, but the head dimension {head_dim}")
    return _checked(
        Architecture(
            name=name,
            layers=_count(values, "block_count", where),
            hidden=hidden,
            ffn=_count(values, "feed_forward_length", where),
            heads=heads,
            kv_heads=_count(values, "attention.head_count_kv", where, heads),
            head_dim=head_dim,
            vocab=len(tokens),
            context=_count(values, "context_length", where),
            rms_eps=_number(values, "attention.layer_norm_rms_epsilon", where),
            rope_theta=_number(values, "rope.freq_base", where, 10000.0),
            scaling=None,
            tied=tied,
        ),
        where,
    )


def tensor_specs(architecture: Architecture) -> dict[str, TensorSpec]:
    """Every tensor that the model must have, by its name in a checkpoint, in transformers' order."""
    a = architecture
    q, kv = a.heads * a.head_dim, a.kv_heads * a.head_dim
    shapes = {
        "token_embd": (a.vocab, a.hidden),
        "output": (a.vocab, a.hidden),
        "attn_q": (q, a.hidden),
        "attn_k": (kv, a.hidden),
        "attn_v": (kv, a.hidden),
        "attn_output": (a.hidden, q),
        "ffn_gate": (a.ffn, a.hidden),
        "ffn_up": (a.ffn, a.hidden),
        "ffn_down": (a.hidden, a.ffn),
    }
    permuted = {"attn_q": a.heads, "attn_k": a.kv_heads} if a.permuted else {}

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
    """Where a module comes in transformers' order of modules, or None if no supported model has it."""
    layer = re.fullmatch(r"model\.layers\.(\d{1,6})\.(.+)", module)
    if layer:
        return (int(layer[1]), list(_LAYER).index(layer[2])) if layer[2] in _LAYER else None
    return {"model.embed_tokens": (-1, 0), "model.norm": (1 << 20, 0), "lm_head": (1 << 20, 1)}.get(module)


def rope_factors(architecture: Architecture) -> NDArray[np.float32] | None:
    """How far each rotary frequency is stretched, (head_dim / 2,), or None where none is.

    Llama 3.1's rule, as in transformers' `_compute_llama3_parameters`.
    """
    scaling = architecture.scaling
    if scaling is None:
        return None
    exponents = np.arange(0, architecture.head_dim, 2, dtype=np.float32) / architecture.head_dim
    wavelengths = 2 * math.pi * np.float32(architecture.rope_theta) ** exponents
    turns = scaling.original_context / wavelengths  # whole rotations within the original context
    low, high = scaling.low_freq_factor, scaling.high_freq_factor
    kept = np.clip((turns - low) / (high - low), 0, 1)
    return np.asarray(1 / ((1 - kept) / scaling.factor + kept), dtype=np.float32)


def permute(rows: NDArray[Any], heads: int) -> NDArray[Any]:
    """Rows of q or k, (heads * head_dim, …), from transformers' half-split order to GGUF's pairs."""
    halves = rows.reshape(heads, 2, rows.shape[0] // heads // 2, *rows.shape[1:])
    return halves.swapaxes(1, 2).reshape(rows.shape)


def unpermute(rows: NDArray[Any], heads: int) -> NDArray[Any]:
    """The inverse of `permute`."""
    pairs = rows.reshape(heads, rows.shape[0] // heads // 2, 2, *rows.shape[1:])
    return pairs.swapaxes(1, 2).reshape(rows.shape)


def metadata_fields(architecture: Architecture) -> dict[str, Field]:
    """The GGUF metadata that a loader needs to build this model."""
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
    return {f"{a.name}.{key}": field for key, field in values.items()}


def _supported(config: Mapping[str, Any], where: str) -> str:
    names = config.get("architectures")
    name = names[0] if isinstance(names, list) and names else None
    if not isinstance(name, str) or name not in ARCHITECTURES:
        raise CheckpointError(f"{where}: the architecture {name!r} is not supported; {_list_supported()}")
    for flag in ("attention_bias", "mlp_bias", "use_sliding_window"):
        if config.get(flag):
            raise CheckpointError(f"{where}: {flag} is true, which is not supported for {name}")
    if config.get("hidden_act", "silu") != "silu":
        raise CheckpointError(f"{where}: hidden_act is {config['hidden_act']!r}; only 'silu' is supported")
    if "quantization_config" in config:
        raise CheckpointError(f"{where}: the checkpoint is quantized; give its bf16, f16 or f32 original")
    return ARCHITECTURES[name]


def _list_supported() -> str:
    return f"supported: {', '.join(ARCHITECTURES)}"


def _number(values: Mapping[str, Any], key: str, where: str, default: float | None = None) -> float:
    value = values.get(key, default)
    if value is None:
        value = default
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
        raise CheckpointError(f"{where}: {key} is {_short(value)}, not a positive number")
    if not 1e-37 < value < 1e38:
        raise CheckpointError(f"{where}: {key} is {_short(value)}, which no float32 holds")
    return value


def _count(values: Mapping[str, Any], key: str, where: str, default: int | None = None) -> int:
    value = _number(values, key, where, default)
    if not isinstance(value, int) or value > 1 << 24:
        raise CheckpointError(f"{where}: {key} is {value!r}, not a count up to {1 << 24}")
    return value


def _short(value: Any) -> str:
    return text if len(text := repr(value)) < 100 else f"{text[:80]}…"


def _rope(config: Mapping[str, Any], where: str) -> Mapping[str, Any]:
    """The settings of the rotary embedding, under the newer name or the older."""
    for key in ("rope_parameters", "rope_scaling"):
        value = config.get(key) or {}
        if not isinstance(value, Mapping):
            raise CheckpointError(f"{where}: {key} is {_short(value)}, not an object")
        if value:
            return value
    return {}


def _scaling(rope: Mapping[str, Any], where: str) -> Llama3Scaling | None:
    if _number(rope, "partial_rotary_factor", where, 1.0) != 1:
        raise CheckpointError(f"{where}: partial_rotary_factor is not 1, which is not supported")
    kind = rope.get("rope_type", rope.get("type", "default"))
    if kind == "default":
        return None
    if kind != "llama3":
        raise CheckpointError(f"{where}: rope scaling {kind!r} is not supported; supported: default, llama3")
    scaling = Llama3Scaling(
        factor=_number(rope, "factor", where),
        low_freq_factor=_number(rope, "low_freq_factor", where),
        high_freq_factor=_number(rope, "high_freq_factor", where),
        original_context=_count(rope, "original_max_position_embeddings", where),
    )
    if scaling.high_freq_factor <= scaling.low_freq_factor:
        raise CheckpointError(
            f"{where}: high_freq_factor {scaling.high_freq_factor} "
            f"is not above low_freq_factor {scaling.low_freq_factor}"
        )
    return scaling


def _checked(architecture: Architecture, where: str) -> Architecture:
    a = architecture
    if a.layers > MAX_LAYERS:
        raise CheckpointError(f"{where}: {a.layers} layers; at most {MAX_LAYERS} are supported")
    if a.heads % a.kv_heads:
        raise CheckpointError(f"{where}: {a.heads} heads do not divide among {a.kv_heads} key-value heads")
    if a.head_dim % 2:
        raise CheckpointError(f"{where}: the head dimension {a.head_dim} is odd")
    return architecture
