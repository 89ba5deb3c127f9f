"""A model's architecture: sizes and constants of a checkpoint, and their counterparts in a GGUF.

Names and configuration keys are those of Hugging Face transformers on one side and llama.cpp on the other.
families.py has what differs between families of models.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from gguf import GGUFValueType
from numpy.typing import NDArray

from ...errors import FileError, shorten
from ...files.gguf.header import Field, Header
from ...files.gguf.metadata import CheckedMetadata
from ...files.gguf.model_shape import MAX_CONTEXT, MAX_LAYERS, ModelShape
from ...stats.arrays import Floats
from ..tensors import TensorSpec
from .config_values import COUNT_MAX, count, flag, number
from .families import ATTENTION, CLASSES, FAMILIES, Family
from .rope import Llama3Scaling, LongRope, find_rope, read_scaling

EMBEDDING, OUTPUT = "token_embd.weight", "output.weight"  # the output only if it is not tied
_SUPPORTED = f"supported: {', '.join(CLASSES)}"
_CONVOLUTION = "shortconv.conv"
# Keys that change the computation where they are true or a number, unless their family has a rule for them.
_REFUSED = (
    *("attention_bias", "mlp_bias", "conv_bias", "use_bidirectional_attention"),
    *("attn_logit_softcapping", "final_logit_softcapping"),
)
# Words of keys that change a computation. A key with one of them that is not in _KNOWN is refused.
_WORDS = (
    *("act", "attn", "attention", "bias", "conv", "expert", "head", "layer", "mlp", "moe", "multiplier"),
    *("norm", "rope", "rotary", "scale", "scaling", "softcap", "window"),
)
_KNOWN = {
    *("attention_dropout", "attention_multiplier", "conv_L_cache", "embedding_multiplier", "full_attn_idxs"),
    *("head_dim", "hidden_act", "hidden_activation", "layer_types", "logits_scaling", "max_window_layers"),
    *("no_rope_layer_interval", "no_rope_layers", "norm_eps", "num_attention_heads", "num_heads"),
    *("num_hidden_layers", "num_key_value_heads", "query_pre_attn_scalar", "residual_multiplier"),
    *("partial_rotary_factor", "rms_norm_eps", "rope_local_base_freq", "rope_parameters", "rope_scaling"),
    *("rope_theta", "sliding_window", "sliding_window_pattern", "use_sliding_window", "window_theta"),
    "_sliding_window_pattern",
    # What transformers' classes do not read.
    *("activation_dropout", "attn_implementation", "cache_implementation", "hidden_dropout_prob"),
    *("is_llama_config", "output_attentions", "pruned_heads", "rope_interleaved"),
    *("block_ffn_dim_multiplier", "block_mlp_init_scale", "block_norm_eps", "block_out_init_scale"),
    *("conv_dim", "conv_dim_out", "conv_use_xavier_init"),
}
_ACTIVATIONS = {"silu": "silu", "swish": "silu", "gelu_pytorch_tanh": "gelu"}


@dataclass(frozen=True)
class Architecture(ModelShape):
    """Sizes and constants of a model.

    Attributes:
        name: one of FAMILIES.
        rms_eps: epsilon of RMSNorm.
        rope_theta: base of the RoPE frequencies.
        scaling: scaling of the RoPE frequencies; None for a GGUF, which stores their divisors as tensors.
        tied: whether the token embedding is also the output matrix.
        biased: matrices of the layers that have a bias.
        rope_width: dimensions of a head that RoPE rotates; None for all.
        rope_linear: divisor of all positions.
        rope_original: tokens of the context before it was extended by LongRoPE.
        rope_attention_factor: factor of the rotated queries and keys.
        embedding_scale: factor of the embedding's rows.
        residual_scale: factor of what a block adds to the hidden state.
        attention_scale: factor of the attention scores; None for 1 / sqrt(head_dim).
        logit_scale: divisor of the logits.
        window: tokens that a query of a layer with a sliding window attends to, its own included.
        windowed: those layers.
        window_theta: `rope_theta` of those layers; None for the same.
        unrotated: layers without RoPE.
        convolved: layers with a short convolution instead of attention.
        conv_width: tokens under its kernel.
    """

    name: str
    rms_eps: float
    rope_theta: float
    scaling: Llama3Scaling | LongRope | None
    tied: bool
    biased: tuple[str, ...] = ()
    rope_width: int | None = None
    rope_linear: float = 1.0
    rope_original: int | None = None
    rope_attention_factor: float = 1.0
    embedding_scale: float = 1.0
    residual_scale: float = 1.0
    attention_scale: float | None = None
    logit_scale: float = 1.0
    window: int | None = None
    windowed: tuple[int, ...] = ()
    window_theta: float | None = None
    unrotated: tuple[int, ...] = ()
    convolved: tuple[int, ...] = ()
    conv_width: int = 0

    @property
    def family(self) -> Family:
        """Its family."""
        return FAMILIES[self.name]

    @property
    def rope_tensors(self) -> dict[str, Floats]:
        """Divisors of the RoPE frequencies as a GGUF has them, (rotated dimensions / 2,), by tensor name."""
        if self.scaling is None:
            return {}
        return self.scaling.tensors(self.rope_theta, self.rope_width or self.head_dim)

    def kinds(self, layer: int) -> dict[str, str]:
        """The modules of a layer, and their names in a GGUF."""
        convolved = layer in self.convolved
        return {
            module: kind
            for module, kind in self.family.layer.items()
            if not (kind in ATTENTION if convolved else kind.startswith("shortconv."))
        }


# Constants that differ between models of a family, or between families: attribute -> key in a GGUF, type.
_CONSTANTS = {
    "rope_original": ("rope.scaling.original_context_length", GGUFValueType.UINT32),
    "rope_attention_factor": ("rope.scaling.attn_factor", GGUFValueType.FLOAT32),
    "embedding_scale": ("embedding_scale", GGUFValueType.FLOAT32),
    "residual_scale": ("residual_scale", GGUFValueType.FLOAT32),
    "attention_scale": ("attention.scale", GGUFValueType.FLOAT32),
    "logit_scale": ("logit_scale", GGUFValueType.FLOAT32),
    "window": ("attention.sliding_window", GGUFValueType.UINT32),
    "window_theta": ("rope.freq_base_swa", GGUFValueType.FLOAT32),
    "conv_width": ("shortconv.l_cache", GGUFValueType.UINT32),
}
_VARIABLE = (*_CONSTANTS, "rope_width", "windowed", "unrotated", "convolved")
_DEFAULTS = {one.name: one.default for one in fields(Architecture) if one.name in _VARIABLE}


def from_config(config: Mapping[str, Any], where: str) -> Architecture:
    """Read the architecture from a checkpoint's config.json; `where` names it in errors.

    Raises:
        FileError: the architecture is not supported, a value is missing or out of range, or a key changes the
            computation in a way that is not known here.
    """
    family = _family(config, where)
    _check_keys(config, family, where)
    config = {**config, **family.normalize(config)}
    rope = find_rope(config, where)
    heads = count(config, "num_attention_heads", where)
    hidden = count(config, "hidden_size", where)
    head_dim = count(config, "head_dim", where, hidden // heads)
    context = count(config, "max_position_embeddings", where)
    width = int(head_dim * number({**config, **rope}, "partial_rotary_factor", where, 1.0))
    shape: dict[str, Any] = {
        "layers": _layers(config, where),
        "hidden": hidden,
        "ffn": count(config, "intermediate_size", where),
        "heads": heads,
        "kv_heads": count(config, "num_key_value_heads", where, heads),
        "head_dim": head_dim,
        "vocab": count(config, "vocab_size", where),
    }
    found = {
        **_scales(config, where),
        **_layer_types(config, shape["layers"], where),
        **read_scaling(rope, context, width, where),
    }
    if width != head_dim:
        found["rope_width"] = width
    if found.get("windowed") and family.window_pattern is None:
        # Without windows, a context of one window computes the same.
        context = min(context, found.pop("window"))
        found = {key: value for key, value in found.items() if not key.startswith("window")}
    biases = (kinds for key, kinds in family.biases.items() if flag(config, key, where))
    architecture = Architecture(
        **shape,
        context=context,
        name=family.name,
        rms_eps=number(config, "rms_norm_eps", where),
        rope_theta=number({**config, **rope}, "rope_theta", where, 10000.0),
        tied=flag(config, "tie_word_embeddings", where),
        biased=(*family.biased, *(kind for kinds in biases for kind in kinds)),
        **({"scaling": None} | dict(family.implied(shape)) | found),
    )
    _check(architecture, shape, where)
    return architecture


def from_header(header: Header) -> Architecture:
    """Read the architecture that a GGUF's metadata describes; its RoPE divisors, if any, stay tensors.

    Raises:
        FileError: an unsupported architecture, or a value that is missing or out of range.
    """
    where, metadata = str(header.path), CheckedMetadata(header)
    name, kind = header.metadata.get("general.architecture"), header.metadata.get("general.type", "model")
    if kind != "model":
        raise FileError(f"{where}: general.type is {shorten(kind)}, not 'model'; a GGUF LoRA is an adapter")
    if name not in FAMILIES:
        supported = ", ".join(FAMILIES)
        raise FileError(
            f"{where}: the architecture {shorten(name)} cannot be converted; those that can: {supported}"
        )
    family, prefix = FAMILIES[str(name)], f"{name}."
    values = {k.removeprefix(prefix): v for k, v in header.metadata.items() if k.startswith(prefix)}
    if (scaling := values.get("rope.scaling.type", "none")) not in ("none", "linear", "longrope"):
        raise FileError(f"{where}: rope.scaling.type is {shorten(scaling)}, which is not supported")
    if header.tensors.keys() & {"rope_freqs.weight"} and "rope.freq_base" not in values:
        raise FileError(f"{where}: rope_freqs.weight without {name}.rope.freq_base")

    def size(key: str, default: int | None = None, maximum: int = COUNT_MAX) -> int:
        return metadata.count(f"{name}.{key}", maximum, default)

    heads, hidden = size("attention.head_count"), size("embedding_length")
    head_dim = size("attention.key_length", hidden // heads)
    layers = size("block_count", maximum=MAX_LAYERS)
    kv_heads, convolved = _kv_heads(values, layers, heads, where)
    if (value := size("attention.value_length", head_dim)) != head_dim:
        raise metadata.error(f"metadata key '{name}.attention.value_length' is {value}, not {head_dim}")
    shape: dict[str, Any] = {
        "layers": layers,
        "hidden": hidden,
        "ffn": size("feed_forward_length"),
        "heads": heads,
        "kv_heads": kv_heads,
        "head_dim": head_dim,
        "vocab": len(metadata.array("tokenizer.ggml.tokens", GGUFValueType.STRING)),
    }
    constants = {field: key for field, (key, _) in _CONSTANTS.items() if field in family.reads}
    found: dict[str, Any] = {
        field: number(values, key, where) for field, key in constants.items() if key in values
    }
    if (width := size("rope.dimension_count", head_dim)) != head_dim:
        found["rope_width"] = width
    if convolved:
        found["convolved"] = convolved
    if "window" in found and family.window_pattern is not None:
        found |= {"window_theta": 1e4} | found  # llama.cpp's default
        found["windowed"] = _windowed(family, layers, values.get("attention.sliding_window_pattern"))
    architecture = Architecture(
        **shape,
        context=size("context_length", maximum=MAX_CONTEXT),
        name=family.name,
        rms_eps=number(values, "attention.layer_norm_rms_epsilon", where),
        rope_theta=number(values, "rope.freq_base", where, 10000.0),
        rope_linear=number(values, "rope.scaling.factor", where, 1.0),
        tied=OUTPUT not in header.tensors,
        biased=tuple(kind for kind in family.kinds if f"blk.0.{kind}.bias" in header.tensors),
        **({"scaling": None} | dict(family.implied(shape)) | found),
    )
    _check(architecture, shape, where)
    return architecture


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


def metadata_fields(architecture: Architecture) -> dict[str, Field]:
    """GGUF metadata from which a loader builds the model."""
    a, u32, f32 = architecture, GGUFValueType.UINT32, GGUFValueType.FLOAT32
    kv_heads = Field(a.kv_heads, u32)
    if a.convolved:
        by_layer = [0 if layer in a.convolved else a.kv_heads for layer in range(a.layers)]
        kv_heads = Field(by_layer, GGUFValueType.ARRAY, u32)
    values = {
        "context_length": Field(a.context, u32),
        "embedding_length": Field(a.hidden, u32),
        "block_count": Field(a.layers, u32),
        "feed_forward_length": Field(a.ffn, u32),
        "attention.head_count": Field(a.heads, u32),
        "attention.head_count_kv": kv_heads,
        "attention.key_length": Field(a.head_dim, u32),
        "attention.value_length": Field(a.head_dim, u32),
        "attention.layer_norm_rms_epsilon": Field(a.rms_eps, f32),
        "rope.freq_base": Field(a.rope_theta, f32),
        "rope.dimension_count": Field(a.rope_width or a.head_dim, u32),
        "vocab_size": Field(a.vocab, u32),
    }
    if a.rope_linear != 1:
        values["rope.scaling.type"] = Field("linear", GGUFValueType.STRING)
        values["rope.scaling.factor"] = Field(a.rope_linear, f32)
    for field, (key, type_) in _CONSTANTS.items():
        if field in a.family.reads and (value := getattr(a, field)) is not None:
            values[key] = Field(value, type_)
    if a.windowed and a.windowed != a.family.windowed(a.layers, a.family.window_pattern or 0):
        pattern = [layer in a.windowed for layer in range(a.layers)]
        key = "attention.sliding_window_pattern"
        values[key] = Field(pattern, GGUFValueType.ARRAY, GGUFValueType.BOOL)
    architecture_fields = {f"{a.name}.{key}": field for key, field in values.items()}
    return {"general.architecture": Field(a.name, GGUFValueType.STRING)} | architecture_fields


def _shapes(a: Architecture) -> dict[str, tuple[int, ...]]:
    """Shapes of the tensors that are no norms of the hidden state, by their names in a GGUF."""
    queries = a.heads * a.head_dim
    wide = a.family.wide_norms
    fused = "ffn_gate" not in a.family.kinds  # gate and up are one matrix
    return {
        **a.layer_matrices,
        "token_embd": (a.vocab, a.hidden),
        "output": (a.vocab, a.hidden),
        "attn_qkv": (queries + 2 * a.kv_width, a.hidden),
        "attn_q_norm": (queries if wide else a.head_dim,),
        "attn_k_norm": (a.kv_width if wide else a.head_dim,),
        "ffn_up": (2 * a.ffn if fused else a.ffn, a.hidden),
        "shortconv.in_proj": (3 * a.hidden, a.hidden),
        _CONVOLUTION: (a.hidden, a.conv_width),
        "shortconv.out_proj": (a.hidden, a.hidden),
    }


def _family(config: Mapping[str, Any], where: str) -> Family:
    names = config.get("architectures")
    name = names[0] if isinstance(names, list) and names else None
    if not isinstance(name, str) or name not in CLASSES:
        raise FileError(f"{where}: the architecture {shorten(name)} is not supported; {_SUPPORTED}")
    if (weights := config.get("transformers_weights")) is not None:
        raise FileError(f"{where}: transformers_weights is {shorten(weights)}, which is not supported")
    if config.get("quantization_config") is not None:
        raise FileError(f"{where}: the checkpoint is quantized; use its original in BF16, F16 or F32")
    return CLASSES[name]


def _check_keys(config: Mapping[str, Any], family: Family, where: str) -> None:
    """Refuse keys that change the computation in a way that the family does not have."""
    for key, value in config.items():
        if value is None or value is False or key in family.biases:
            continue
        unknown = key not in _KNOWN and any(word in key.lower() for word in _WORDS)
        if key in _REFUSED or (unknown and not isinstance(value, str)):
            raise FileError(
                f"{where}: {shorten(key)} is {shorten(value)}, which is not supported for {family.name}"
            )
    act = {**config, **family.normalize(config)}.get("hidden_act", "silu")
    if _ACTIVATIONS.get(act if isinstance(act, str) else "") != family.activation:
        raise FileError(f"{where}: hidden_act is {shorten(act)}; {family.name} has {family.activation}")


def _layers(config: Mapping[str, Any], where: str) -> int:
    layers = count(config, "num_hidden_layers", where)
    if layers > MAX_LAYERS:
        raise FileError(f"{where}: num_hidden_layers is {layers}; at most {MAX_LAYERS} are supported")
    return layers


def _scales(config: Mapping[str, Any], where: str) -> dict[str, Any]:
    """The constants that a config gives as numbers."""
    keys = {
        "embedding_multiplier": "embedding_scale",
        "residual_multiplier": "residual_scale",
        "attention_multiplier": "attention_scale",
        "logits_scaling": "logit_scale",
        "window_theta": "window_theta",
    }
    found = {field: number(config, key, where) for key, field in keys.items() if config.get(key) is not None}
    if config.get("conv_L_cache") is not None:
        found["conv_width"] = count(config, "conv_L_cache", where)
    if config.get("query_pre_attn_scalar") is not None:
        found["attention_scale"] = number(config, "query_pre_attn_scalar", where) ** -0.5
    return found


def _layer_types(config: Mapping[str, Any], layers: int, where: str) -> dict[str, Any]:
    """The layers that have a window, a convolution or no RoPE."""
    types = _list(config, "layer_types", layers, where)
    found: dict[str, Any] = {}
    window = config.get("sliding_window") if config.get("use_sliding_window", True) else None
    if window is not None:
        first = count(config, "max_window_layers", where) if config.get("max_window_layers") else 0
        types = types or [
            "sliding_attention" if layer >= first else "full_attention" for layer in range(layers)
        ]
    elif flag(config, "use_sliding_window", where):
        raise FileError(f"{where}: use_sliding_window is true, but there is no sliding_window")
    for kind, field in (("sliding_attention", "windowed"), ("conv", "convolved")):
        if chosen := tuple(layer for layer, type_ in enumerate(types) if type_ == kind):
            found[field] = chosen
    if unknown := set(map(str, types)) - {"full_attention", "sliding_attention", "conv"}:
        raise FileError(f"{where}: layer_types has {shorten(min(unknown))}, which is not supported")
    if "windowed" in found:
        found["window"] = count(config, "sliding_window", where)
    rotated = _list(config, "no_rope_layers", layers, where)
    if unrotated := tuple(layer for layer, used in enumerate(rotated) if not used):
        found["unrotated"] = unrotated
    return found


def _list(config: Mapping[str, Any], key: str, length: int, where: str) -> list[Any]:
    """A list with an entry for each layer; empty where there is none."""
    value = config.get(key) or []
    if not isinstance(value, list) or (value and len(value) != length):
        raise FileError(f"{where}: {key} is {shorten(value)}, not a list of {length} layers")
    return value


def _kv_heads(values: Mapping[str, Any], layers: int, heads: int, where: str) -> tuple[int, tuple[int, ...]]:
    """The key-value heads of the layers that have attention, and the layers that have none."""
    found = values.get("attention.head_count_kv", heads)
    by_layer = found if isinstance(found, list) else [found] * layers
    different = sorted(set(by_layer) - {0})
    if len(by_layer) != layers or len(different) != 1 or not 1 <= different[0] <= COUNT_MAX:
        raise FileError(f"{where}: attention.head_count_kv is {shorten(found)}, which is not supported")
    return different[0], tuple(layer for layer, count in enumerate(by_layer) if not count)


def _windowed(family: Family, layers: int, pattern: object) -> tuple[int, ...]:
    if isinstance(pattern, list):
        return tuple(layer for layer, windowed in enumerate(pattern[:layers]) if windowed)
    return family.windowed(layers, pattern if isinstance(pattern, int) else family.window_pattern or 0)


def _check(architecture: Architecture, shape: Mapping[str, Any], where: str) -> None:
    """Check that the graph of llama.cpp computes what the checkpoint says."""
    a, family = architecture, architecture.family
    a.check(where)
    for field, expected in (_DEFAULTS | dict(family.implied(shape))).items():
        value = getattr(a, field)
        if field not in family.reads and not _equal(value, expected):
            raise FileError(
                f"{where}: {field.replace('_', ' ')} is {shorten(value)}, but llama.cpp's {family.name} has "
                f"{shorten(expected)}"
            )
    if family.tied is not None and a.tied != family.tied:
        raise FileError(f"{where}: tie_word_embeddings is {a.tied}, which llama.cpp's {family.name} has not")


def _equal(value: Any, expected: Any) -> bool:
    floats = isinstance(value, float) and isinstance(expected, float)
    return math.isclose(value, expected, rel_tol=1e-6) if floats else bool(value == expected)
