"""An architecture as config.json: read by the rules of transformers' classes, and the inverse for a GGUF."""

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from ...errors import FileError, shorten
from ...files.gguf.model_shape import MAX_COUNT, MAX_LAYERS
from ...files.json_file import layout_errors
from ...stats import Floats
from .architecture import CONSTANTS, F32, SIZES, U32, Architecture, check
from .families import CLASSES, FACTORS, LONG_FACTORS, SHORT_FACTORS, Family

# Keys that change the computation or the weights, unless they are false or null, or a bias of the family.
_REFUSED = (
    *("conv_bias", "use_bidirectional_attention", "attn_logit_softcapping", "final_logit_softcapping"),
    *("quantization_config", "transformers_weights", "attention_bias", "mlp_bias"),
)
_FLOAT_MAX = 1e38  # of float32
_MOST = {U32: MAX_COUNT, F32: _FLOAT_MAX}
_SCALED = {"llama3": (FACTORS,), "longrope": (LONG_FACTORS, SHORT_FACTORS)}  # by divisors in tensors
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
    layers = number(config, "num_hidden_layers", where, most=MAX_LAYERS)
    config = {**family.defaults, **config}
    config = {**config, **family.normalize(config)}
    _check_keys(config, family, where)
    rope = config.get("rope_scaling") or config.get("rope_parameters") or {}  # transformers 5 has the second
    config |= {key: rope[key] for key in ("rope_theta", "partial_rotary_factor") if key in rope}
    heads, hidden = (
        number(config, key, where, most=MAX_COUNT) for key in ("num_attention_heads", "hidden_size")
    )
    defaults = {"kv_heads": heads, "head_dim": hidden // heads}
    biases = (kind for key, kinds in family.biases.items() if config.get(key) for kind in kinds)
    sizes: dict[str, Any] = {
        name: number(config, key, where, defaults.get(name), _MOST[type_])
        for name, type_, key in SIZES.values()
        if key
    }
    architecture = Architecture(
        **sizes,
        name=family.name,
        rope_theta=number(config, "rope_theta", where, 10000.0),
        tied=bool(config.get("tie_word_embeddings")),
        biased=(*family.biased, *biases),
    )
    found = _layer_types(config, layers, where) | {
        name: number(config, key, where, most=_MOST[type_])
        for name, type_, key in CONSTANTS.values()
        if config.get(key) is not None
    }
    width = int(architecture.head_dim * number(config, "partial_rotary_factor", where, 1.0))
    if width != architecture.head_dim:
        found["rope_width"] = width
    if config.get("query_pre_attn_scalar") is not None:
        found["attention_scale"] = number(config, "query_pre_attn_scalar", where) ** -0.5
    if found.get("windowed") and family.window_pattern is None:
        # Without windows, a context of one window computes the same.
        context = min(architecture.context, found["window"])
        found = {key: value for key, value in found.items() if not key.startswith("window")}
        found["context"] = context
    architecture = replace(architecture, **{**family.implied(architecture), **found})
    check(architecture, where)
    return _scaled(architecture, rope, where)


def number(
    values: Mapping[str, Any], key: str, where: str, default: float | None = None, most: float = _FLOAT_MAX
) -> Any:
    """A positive number up to `most`, within the range of float32; an integer if that is one."""
    value: Any = default if values.get(key) is None else values[key]
    kinds = (int,) if isinstance(most, int) else (int, float)
    if type(value) not in kinds or not 1e-37 < value <= most:
        expected = f"an integer up to {most}" if kinds == (int,) else "a positive number of float32"
        raise FileError(f"{where}: {key} is {shorten(value)}, not {expected}")
    return value


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
        found["window"] = number(config, "sliding_window", where, most=MAX_COUNT)
    if rotated := config.get("no_rope_layers"):
        pairs = zip(range(layers), rotated, strict=True)
        found["unrotated"] = tuple(layer for layer, used in pairs if not used)
    return found


def _scaled(a: Architecture, rope: Mapping[str, Any], where: str) -> Architecture:
    """An architecture with the scaling of RoPE, by the rules of transformers' `modeling_rope_utils.py`."""
    kind = rope.get("rope_type", rope.get("type", "default"))
    if kind == "default":
        return a
    if kind == "linear":
        return replace(a, rope_linear=number(rope, "factor", where))
    if kind not in _SCALED:
        raise FileError(
            f"{where}: rope scaling {shorten(kind)} is not supported; "
            "supported: default, linear, llama3, longrope"
        )
    if _SCALED[kind] != a.family.divisors:
        raise FileError(f"{where}: rope scaling is {kind}, which llama.cpp's {a.name} does not read")
    original = number(rope, "original_max_position_embeddings", where, most=MAX_COUNT)
    if kind == "longrope":
        divisors = [np.array(rope[f"{name}_factor"], float) for name in ("long", "short")]
        factor = number(rope, "factor", where, a.context / original)
        default = math.sqrt(1 + math.log(factor) / math.log(max(original, 2))) if factor > 1 else 1.0
        attention_factor = number(rope, "attention_factor", where, default)
        a = replace(a, rope_original=original, rope_attention_factor=attention_factor)
    else:  # long wavelengths are stretched by the factor, short ones are unchanged
        factor, low, high = (number(rope, f"{name}factor", where) for name in ("", "low_freq_", "high_freq_"))
        exponents = np.arange(0, a.rotated, 2, dtype=np.float32) / a.rotated
        wavelengths = 2 * math.pi * np.float32(a.rope_theta) ** exponents
        rotations = original / wavelengths  # within the original context
        smooth = np.clip((rotations - low) / (high - low), 0, 1)
        divisors = [1 / ((1 - smooth) / factor + smooth)]
    values = (tuple(one.reshape(a.rotated // 2).tolist()) for one in divisors)
    return replace(a, divisors=dict(zip(a.family.divisors, values, strict=True)))


def to_config(
    architecture: Architecture, divisors: Mapping[str, Floats], tokens: Mapping[str, int], where: str
) -> dict[str, Any]:
    """Invert from_config() for a model of a GGUF, but for RoPE scaling as in Llama 3.

    Args:
        architecture: its sizes and constants.
        divisors: of the RoPE frequencies, by tensor name.
        tokens: ids of special tokens, by their keys in a config.
        where: names the model in errors.

    Raises:
        FileError: transformers has no such model, as where biases are on some of the matrices alone.
    """
    a = architecture
    config = {
        "architectures": [a.family.classes[0]],
        "model_type": a.name,
        **{key: getattr(a, name) for name, _, key in SIZES.values() if key},
        "tie_word_embeddings": a.tied,
        "rope_parameters": _rope_parameters(a, divisors),
        "pad_token_id": None,
        **tokens,
        **{key: {*kinds} <= {*a.biased} for key, kinds in a.family.biases.items()},
    }
    config |= _family_entries(a, config["rope_parameters"])
    if _compared(from_config(config, where)) != _compared(a):
        raise FileError(f"{where}: transformers' {a.family.classes[0]} has no such model")
    return config


def _rope_parameters(a: Architecture, divisors: Mapping[str, Floats]) -> dict[str, Any]:
    rope: dict[str, Any] = {"rope_type": "default", "rope_theta": a.rope_theta}
    if a.rope_linear != 1:
        rope |= {"rope_type": "linear", "factor": a.rope_linear}
    if LONG_FACTORS in divisors:
        factors = [[*map(float, divisors[name])] for name in (LONG_FACTORS, SHORT_FACTORS)]
        original = a.rope_original or a.context
        rope |= {
            **{"rope_type": "longrope", "long_factor": factors[0], "short_factor": factors[1]},
            **{"original_max_position_embeddings": original, "factor": a.context / original},
            "attention_factor": a.rope_attention_factor,
        }
    return rope


def _family_entries(a: Architecture, rope: Mapping[str, Any]) -> dict[str, Any]:
    """The entries that the models of one family alone have."""
    scale = a.attention_scale or a.head_dim**-0.5
    types = [
        "sliding_attention" if layer in a.windowed else "conv" if layer in a.convolved else "full_attention"
        for layer in range(a.layers)
    ]
    match a.name:
        case "gemma3":
            sliding = {"rope_type": "default", "rope_theta": a.window_theta or a.rope_theta}
            return {
                "model_type": "gemma3_text",
                "rope_parameters": {"full_attention": rope, "sliding_attention": sliding},
                "query_pre_attn_scalar": round(scale**-2),
                "sliding_window": a.window,
                "layer_types": types,
            }
        case "smollm3":
            return {"no_rope_layers": [int(layer not in a.unrotated) for layer in range(a.layers)]}
        case "granite":
            values = {key: getattr(a, name) for name, _, key in CONSTANTS.values() if name in a.family.reads}
            return values | {"attention_multiplier": scale}
        case "phi3":
            return {
                "partial_rotary_factor": a.rotated / a.head_dim,
                "original_max_position_embeddings": a.rope_original or a.context,
            }
        case "lfm2":
            return {
                **{"norm_eps": a.rms_eps, "conv_L_cache": a.conv_width, "layer_types": types},
                "block_auto_adjust_ff_dim": False,
            }
    return {}


def _compared(a: Architecture) -> Architecture:
    """An architecture without the scaling of RoPE, which a GGUF has as tensors."""
    biased = tuple(sorted(a.biased))
    return replace(a, divisors={}, rope_original=None, rope_attention_factor=1.0, biased=biased)
