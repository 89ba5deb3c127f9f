"""A model's architecture: sizes and constants of a checkpoint, and their counterparts in a GGUF.

Names and configuration keys are those of transformers on one side and llama.cpp on the other.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np
from gguf import GGUFValueType
from numpy.typing import NDArray

from ...errors import FileError, shorten
from ...files.gguf.model_shape import ModelShape
from ...stats import Floats
from ..tensors import TensorSpec
from .families import ATTENTION, FAMILIES, Family

U32, F32 = GGUFValueType.UINT32, GGUFValueType.FLOAT32
EMBEDDING, OUTPUT = "token_embd.weight", "output.weight"  # the output only if it is not tied


@dataclass(frozen=True)
class Architecture(ModelShape):
    """Sizes and constants of a model."""

    name: str  # one of FAMILIES
    rms_eps: float
    rope_theta: float  # base of the RoPE frequencies
    tied: bool  # whether the token embedding is also the output matrix
    # divisors of the RoPE frequencies, by the names of their tensors in a GGUF; empty for one that has them
    divisors: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    biased: tuple[str, ...] = ()  # matrices of the layers that have a bias
    rope_width: int | None = None  # dimensions of a head that RoPE rotates; None for all
    rope_linear: float = 1.0  # divisor of all positions
    rope_original: int | None = None  # tokens of the context before it was extended by LongRoPE
    rope_attention_factor: float = 1.0  # of the rotated queries and keys
    embedding_scale: float = 1.0  # factor of the embedding's rows
    residual_scale: float = 1.0  # factor of what a block adds to the hidden state
    attention_scale: float | None = None  # factor of the attention scores; None for 1 / sqrt(head_dim)
    logit_scale: float = 1.0  # divisor of the logits
    window: int | None = None  # tokens that a query of a windowed layer attends to, its own included
    windowed: tuple[int, ...] = ()  # layers with a sliding window
    window_theta: float | None = None  # `rope_theta` of those layers; None for the same
    unrotated: tuple[int, ...] = ()  # layers without RoPE
    convolved: tuple[int, ...] = ()  # layers with a short convolution instead of attention
    conv_width: int = 0  # tokens under its kernel

    @property
    def family(self) -> Family:
        """Its family."""
        return FAMILIES[self.name]

    @property
    def rotated(self) -> int:
        """Dimensions of a head that RoPE rotates."""
        return self.head_dim if self.rope_width is None else self.rope_width

    @property
    def rope_tensors(self) -> dict[str, Floats]:
        """Divisors of the RoPE frequencies as a GGUF has them, (rotated dimensions / 2,), by tensor name."""
        return {name: np.array(values, np.float32) for name, values in self.divisors.items()}

    def kinds(self, layer: int) -> dict[str, str]:
        """The modules of a layer, and their names in a GGUF."""
        convolved = layer in self.convolved
        return {
            module: kind
            for module, kind in self.family.layer.items()
            if not (kind in ATTENTION if convolved else kind.startswith("shortconv."))
        }


# What every architecture has: key in a GGUF -> attribute, type, and key in a config. The last is empty, here
# and below, where a config has a rule of its own.
SIZES = {
    "context_length": ("context", U32, "max_position_embeddings"),
    "embedding_length": ("hidden", U32, "hidden_size"),
    "block_count": ("layers", U32, "num_hidden_layers"),
    "feed_forward_length": ("ffn", U32, "intermediate_size"),
    "attention.head_count": ("heads", U32, "num_attention_heads"),
    "attention.head_count_kv": ("kv_heads", U32, "num_key_value_heads"),
    "attention.key_length": ("head_dim", U32, "head_dim"),
    "attention.value_length": ("head_dim", U32, "head_dim"),
    "attention.layer_norm_rms_epsilon": ("rms_eps", F32, "rms_norm_eps"),
    "rope.freq_base": ("rope_theta", F32, ""),
    "rope.dimension_count": ("rotated", U32, ""),
    "vocab_size": ("vocab", U32, "vocab_size"),
}
# Constants that differ between models of a family, or between families.
CONSTANTS = {
    "rope.scaling.original_context_length": ("rope_original", U32, ""),
    "rope.scaling.attn_factor": ("rope_attention_factor", F32, ""),
    "embedding_scale": ("embedding_scale", F32, "embedding_multiplier"),
    "residual_scale": ("residual_scale", F32, "residual_multiplier"),
    "attention.scale": ("attention_scale", F32, "attention_multiplier"),
    "logit_scale": ("logit_scale", F32, "logits_scaling"),
    "attention.sliding_window": ("window", U32, ""),
    "rope.freq_base_swa": ("window_theta", F32, "window_theta"),
    "shortconv.l_cache": ("conv_width", U32, "conv_L_cache"),
}
_ROTATION = "partial_rotary_factor or rope.dimension_count"
_LABELS = {  # where the names in a config and in a GGUF are others
    "rope_width": f"{_ROTATION}: the number of rotated dimensions",
    "attention_scale": "attention_multiplier or query_pre_attn_scalar: the scale of attention",
    "tied": "tie_word_embeddings",
}
_VARIABLE = (*(name for name, _, _ in CONSTANTS.values()), "rope_width", "windowed", "unrotated", "convolved")
_DEFAULTS = {one.name: one.default for one in fields(Architecture) if one.name in _VARIABLE}


def tensor_specs(architecture: Architecture) -> dict[str, TensorSpec]:
    """List the tensors of a model by their names in a checkpoint, in transformers' order."""
    a, family, shapes = architecture, architecture.family, _shapes(architecture)
    permuted = {"attn_q": a.heads, "attn_k": a.kv_heads} if family.permuted else {}

    def spec(module: str, target: str, kind: str, part: str = "weight") -> TensorSpec:
        shape = shapes.get(kind, (a.hidden,))
        return TensorSpec(
            f"{module}.{part}",
            f"{target}.{part}",
            shape if part == "weight" else shape[:1],
            permuted.get(kind, 0),
            family.norm_offset if kind.endswith("norm") else 0.0,
        )

    outside = {m: k for m, k in family.outside.items() if not (a.tied and k == "output")}
    specs = [spec(m, k, k) for m, k in outside.items() if k == "token_embd"]
    for layer in range(a.layers):
        for module, kind in a.kinds(layer).items():
            parts = ("weight", "bias") if kind in a.biased else ("weight",)
            specs += [spec(f"model.layers.{layer}.{module}", f"blk.{layer}.{kind}", kind, p) for p in parts]
    specs += [spec(m, k, k) for m, k in outside.items() if k != "token_embd"]
    return {spec.source: spec for spec in specs}


def permute(rows: NDArray[Any], heads: int) -> NDArray[Any]:
    """Reorder rows of q or k, (heads * head_dim, …), from transformers' halves to GGUF's pairs."""
    halves = rows.reshape(heads, 2, rows.shape[0] // heads // 2, *rows.shape[1:])
    return halves.swapaxes(1, 2).reshape(rows.shape)


def unpermute(rows: NDArray[Any], heads: int) -> NDArray[Any]:
    """Invert permute()."""
    pairs = rows.reshape(heads, rows.shape[0] // heads // 2, 2, *rows.shape[1:])
    return pairs.swapaxes(1, 2).reshape(rows.shape)


def _shapes(a: Architecture) -> dict[str, tuple[int, ...]]:
    """Shapes of the tensors that are no norms of the hidden state, by their names in a GGUF."""
    queries = a.heads * a.head_dim
    wide = a.family.wide_norms
    fused = "ffn_gate" not in a.family.layer.values()  # gate and up are one matrix
    return {
        **a.layer_matrices,
        "token_embd": (a.vocab, a.hidden),
        "output": (a.vocab, a.hidden),
        "attn_qkv": (queries + 2 * a.kv_width, a.hidden),
        "attn_q_norm": (queries if wide else a.head_dim,),
        "attn_k_norm": (a.kv_width if wide else a.head_dim,),
        "ffn_up": (2 * a.ffn if fused else a.ffn, a.hidden),
        "shortconv.in_proj": (3 * a.hidden, a.hidden),
        "shortconv.conv": (a.hidden, a.conv_width),
        "shortconv.out_proj": (a.hidden, a.hidden),
    }


def check(architecture: Architecture, where: str) -> None:
    """Refuse what the graph of llama.cpp does not compute; `where` names the model in the FileError."""
    a, family = architecture, architecture.family
    a.check(where)
    if a.rotated % 2 or not 2 <= a.rotated <= a.head_dim:
        raise FileError(f"{where}: {_ROTATION} rotates {a.rotated} of {a.head_dim} dimensions")
    graph = _DEFAULTS | dict(family.implied(a)) | ({} if family.tied is None else {"tied": family.tied})
    for name, expected in graph.items():
        value = getattr(a, name)
        if name not in family.reads and not _equal(value, expected):
            found = f"{_LABELS.get(name, name)} is {shorten(value)}"
            usual = "" if expected is None else f": that has {shorten(expected)}"
            raise FileError(f"{where}: {found}, which llama.cpp's {family.name} does not read{usual}")


def _equal(value: Any, expected: Any) -> bool:
    floats = isinstance(value, float) and isinstance(expected, float)
    return math.isclose(value, expected, rel_tol=1e-6) if floats else bool(value == expected)
