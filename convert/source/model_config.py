"""The architecture that a checkpoint's config.json describes, by the rules of transformers' classes."""

import math
from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any

import numpy as np
from gguf import GGUFValueType

from ...errors import FileError, shorten
from ...files.gguf.model_shape import MAX_COUNT, MAX_LAYERS, ModelShape
from ...files.json_file import layout_errors
from .architecture import CONSTANTS, Architecture, check
from .families import CLASSES, Family
from .rope import Llama3Scaling, LongRope

# Keys that change the computation or the weights, unless they are false or null, or a bias of the family.
_REFUSED = (
    *("conv_bias", "use_bidirectional_attention", "attn_logit_softcapping", "final_logit_softcapping"),
    *("quantization_config", "transformers_weights", "attention_bias", "mlp_bias"),
)
_ACTIVATIONS = {"silu": "silu", "swish": "silu", "gelu_pytorch_tanh": "gelu"}


def from_config(config: Mapping[str, Any], where: str) -> Architecture:
    """Read the architecture from a checkpoint's config.json; `where` names it in errors.

    Raises:
        FileError: the architecture is not supported, or a value is missing, out of range or not llama.cpp's.
    """
    with layout_errors(where):
        name, *_ = config.get("architectures") or ["none"]
        if name not in CLASSES:
            raise FileError(
                f"{where}: the architecture {shorten(name)} cannot be converted; a GGUF of it may run as it "
                f"is; supported: {', '.join(CLASSES)}"
            )
        return _read(config, CLASSES[name], where)


def _read(config: Mapping[str, Any], family: Family, where: str) -> Architecture:
    layers = count(config, "num_hidden_layers", where, most=MAX_LAYERS)
    config = {**family.defaults, **config}
    config = {**config, **family.normalize(config)}
    _check_keys(config, family, where)
    rope = config.get("rope_scaling") or config.get("rope_parameters") or {}  # transformers 5 has the second
    heads = count(config, "num_attention_heads", where)
    hidden = count(config, "hidden_size", where)
    head_dim = count(config, "head_dim", where, hidden // heads)
    width = int(head_dim * number({**config, **rope}, "partial_rotary_factor", where, 1.0))
    shape = ModelShape(
        layers=layers,
        hidden=hidden,
        ffn=count(config, "intermediate_size", where),
        heads=heads,
        kv_heads=count(config, "num_key_value_heads", where, heads),
        head_dim=head_dim,
        vocab=count(config, "vocab_size", where),
        context=count(config, "max_position_embeddings", where),
    )
    found = {
        **{
            field: (count if type_ is GGUFValueType.UINT32 else number)(config, key, where)
            for field, (_, type_, key) in CONSTANTS.items()
            if config.get(key) is not None
        },
        **_layer_types(config, layers, where),
        **_scaling(rope, shape.context, width, where),
    }
    if width != head_dim:
        found["rope_width"] = width
    if config.get("query_pre_attn_scalar") is not None:
        found["attention_scale"] = number(config, "query_pre_attn_scalar", where) ** -0.5
    if found.get("windowed") and family.window_pattern is None:
        # Without windows, a context of one window computes the same.
        shape = replace(shape, context=min(shape.context, found["window"]))
        found = {key: value for key, value in found.items() if not key.startswith("window")}
    biases = (kind for key, kinds in family.biases.items() if config.get(key) for kind in kinds)
    architecture = Architecture(
        **asdict(shape),
        name=family.name,
        rms_eps=number(config, "rms_norm_eps", where),
        rope_theta=number({**config, **rope}, "rope_theta", where, 10000.0),
        tied=bool(config.get("tie_word_embeddings")),
        biased=(*family.biased, *biases),
        **(dict(family.implied(shape)) | found),
    )
    check(architecture, where)
    return architecture


def number(
    values: Mapping[str, Any], key: str, where: str, default: float | None = None, most: float = 1e38
) -> float:
    """A positive number up to `most`: within the range of float32."""
    value: Any = default if values.get(key) is None else values[key]
    kinds = (int,) if isinstance(most, int) else (int, float)
    if type(value) not in kinds or not 1e-37 < value <= most:
        expected = f"an integer up to {most}" if kinds == (int,) else "a positive number of float32"
        raise FileError(f"{where}: {key} is {shorten(value)}, not {expected}")
    checked: float = value
    return checked


def count(
    values: Mapping[str, Any], key: str, where: str, default: int | None = None, most: int = MAX_COUNT
) -> int:
    """A positive integer up to `most`."""
    return int(number(values, key, where, default, most))


def _check_keys(config: Mapping[str, Any], family: Family, where: str) -> None:
    """Refuse keys that change the computation in a way that the family does not have."""
    for key in _REFUSED:
        if (value := config.get(key)) not in (None, False) and key not in family.biases:
            hint = "; use the original in BF16, F16 or F32" if key == "quantization_config" else ""
            raise FileError(f"{where}: {key} is {shorten(value)}, not supported for {family.name}{hint}")
    act = config.get("hidden_act", "silu")
    if _ACTIVATIONS.get(act) != family.activation:
        raise FileError(f"{where}: hidden_act is {shorten(act)}; {family.name} has {family.activation}")


def _layer_types(config: Mapping[str, Any], layers: int, where: str) -> dict[str, Any]:
    """The layers that have a window, a convolution or no RoPE."""
    types = config.get("layer_types") or ["full_attention"] * layers
    window = config.get("sliding_window") if config.get("use_sliding_window", True) else None
    if window is not None and not config.get("layer_types"):
        full = config.get("max_window_layers") or 0
        types = ["full_attention"] * full + ["sliding_attention"] * (layers - full)
    places: dict[str, list[int]] = {"sliding_attention": [], "conv": [], "full_attention": []}
    for layer, type_ in zip(range(layers), types, strict=True):
        places.setdefault(type_, []).append(layer)
    windowed, convolved, _, *unknown = places
    if unknown:
        raise FileError(f"{where}: layer_types has {shorten(unknown[0])}, which is not supported")
    found: dict[str, Any] = {"windowed": tuple(places[windowed]), "convolved": tuple(places[convolved])}
    if found["windowed"]:
        found["window"] = count(config, "sliding_window", where)
    if rotated := config.get("no_rope_layers"):
        pairs = zip(range(layers), rotated, strict=True)
        found["unrotated"] = tuple(layer for layer, used in pairs if not used)
    return found


def _scaling(rope: Mapping[str, Any], context: int, width: int, where: str) -> dict[str, Any]:
    """The scaling of RoPE, by the rules of transformers' `modeling_rope_utils.py`."""
    match rope.get("rope_type", rope.get("type", "default")):
        case "default":
            return {}
        case "linear":
            return {"rope_linear": number(rope, "factor", where)}
        case "llama3":
            keys = ("factor", "low_freq_factor", "high_freq_factor")
            factor, low, high = (number(rope, key, where) for key in keys)
            original = count(rope, "original_max_position_embeddings", where)
            return {"scaling": Llama3Scaling(factor, low, high, original)}
        case "longrope":
            original = count(rope, "original_max_position_embeddings", where)
            long, short = (
                np.array(rope[f"{name}_factor"], float).reshape(width // 2) for name in ("long", "short")
            )
            factor = number(rope, "factor", where, context / original)
            default = math.sqrt(1 + math.log(factor) / math.log(max(original, 2))) if factor > 1 else 1.0
            return {
                "scaling": LongRope(tuple(long.tolist()), tuple(short.tolist())),
                "rope_original": original,
                "rope_attention_factor": number(rope, "attention_factor", where, default),
            }
        case kind:
            raise FileError(
                f"{where}: rope scaling {shorten(kind)} is not supported; "
                "supported: default, linear, llama3, longrope"
            )
