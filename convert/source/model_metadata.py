"""An architecture as metadata of a GGUF: written for llama.cpp, and read by the rules of its loader."""

from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from typing import Any

from gguf import GGUFValueType

from ...errors import FileError, shorten
from ...files.gguf.header import Field, Header
from ...files.gguf.model_shape import MAX_COUNT, ModelShape, read_decoder_shape
from .architecture import CONSTANTS, OUTPUT, SIZES, U32, Architecture, check
from .families import FAMILIES, Family
from .model_config import number

# Keys that llama.cpp reads for every graph, and the values that a conversion keeps, the default first.
_KEPT = {
    "rope.scaling.type": ("none", "linear", "longrope"),
    "attention.causal": (True,),
    "pooling_type": (0,),
    "rope.scaling.attn_factor": (1.0,),
}


def metadata_fields(architecture: Architecture) -> dict[str, Field]:
    """GGUF metadata from which a loader builds the model."""
    a, array = architecture, GGUFValueType.ARRAY
    values = {key: Field(getattr(a, name), type_) for key, (name, type_, _) in SIZES.items()}
    if a.convolved:
        by_layer = [0 if layer in a.convolved else a.kv_heads for layer in range(a.layers)]
        values["attention.head_count_kv"] = Field(by_layer, array, U32)
    if a.rope_linear != 1:
        values["rope.scaling.type"] = Field("linear", GGUFValueType.STRING)
        values["rope.scaling.factor"] = Field(a.rope_linear, GGUFValueType.FLOAT32)
    for key, (name, type_, _) in CONSTANTS.items():
        if name in a.family.reads and (value := getattr(a, name)) is not None:
            values[key] = Field(value, type_)
    if a.windowed and a.windowed != a.family.windowed(a.layers, a.family.window_pattern or 0):
        pattern = [layer in a.windowed for layer in range(a.layers)]
        values["attention.sliding_window_pattern"] = Field(pattern, array, GGUFValueType.BOOL)
    named = {f"{a.name}.{key}": field for key, field in values.items()}
    return {"general.architecture": Field(a.name, GGUFValueType.STRING)} | named


def from_header(header: Header) -> Architecture:
    """Read the architecture that a GGUF's metadata describes; its RoPE divisors, if any, stay tensors.

    Raises:
        FileError: the architecture is not supported, or a value is missing or out of range.
    """
    where = str(header.path)
    name, kind = header.metadata.get("general.architecture"), header.metadata.get("general.type", "model")
    if kind != "model" or str(name) not in FAMILIES:
        what = f"general.type {shorten(kind)}" if kind != "model" else f"the architecture {shorten(name)}"
        raise FileError(f"{where}: {what} cannot be converted; models of {', '.join(FAMILIES)} can")
    family, prefix = FAMILIES[str(name)], f"{name}."
    values = {k.removeprefix(prefix): v for k, v in header.metadata.items() if k.startswith(prefix)}
    constants = {key: one for key, one in CONSTANTS.items() if one[0] in family.reads}
    for key, kept in _KEPT.items():
        if key not in constants and (value := values.get(key, kept[0])) not in kept:
            raise FileError(f"{where}: {name}.{key} is {shorten(value)}, which a conversion would lose")

    convolved = _without_attention(values, where)
    shape = read_decoder_shape(header)
    shape.check(where)
    found: dict[str, Any] = {
        attribute: header.count(prefix + key, MAX_COUNT) if type_ is U32 else number(values, key, where)
        for key, (attribute, type_, _) in constants.items()
        if key in values
    }
    width = header.count(f"{name}.rope.dimension_count", MAX_COUNT, shape.head_dim)
    if width != shape.head_dim:
        found["rope_width"] = width
    if convolved:
        found["convolved"] = convolved
    if "window" in found and family.window_pattern is not None:
        found |= {"window_theta": 1e4} | found  # llama.cpp's default
        pattern = values.get("attention.sliding_window_pattern")
        found["windowed"] = _windowed(family, shape.layers, pattern)
    architecture = Architecture(
        **{one.name: getattr(shape, one.name) for one in fields(ModelShape)},
        name=family.name,
        rms_eps=number(values, "attention.layer_norm_rms_epsilon", where),
        rope_theta=number(values, "rope.freq_base", where, 10000.0),
        rope_linear=_linear_scaling(values, where),
        tied=OUTPUT not in header.tensors,
        biased=tuple(k for k in family.layer.values() if f"blk.0.{k}.bias" in header.tensors),
    )
    architecture = replace(architecture, **{**family.implied(architecture), **found})
    check(architecture, where)
    return architecture


def _linear_scaling(values: Mapping[str, Any], where: str) -> float:
    """The divisor of all positions as llama.cpp reads it: also by its old key, and 0 for none."""
    key = "rope.scaling.factor" if "rope.scaling.factor" in values else "rope.scale_linear"
    if values.get("rope.scaling.type") == "none" or values.get(key) == 0:
        return 1.0
    return float(number(values, key, where, 1.0))


def _without_attention(values: Mapping[str, Any], where: str) -> tuple[int, ...]:
    """The layers whose number of key-value heads is 0; the others must have the same."""
    by_layer = values.get("attention.head_count_kv")
    if not isinstance(by_layer, Sequence):
        return ()
    if len(set(by_layer) - {0}) != 1:
        raise FileError(f"{where}: attention.head_count_kv is {shorten(by_layer)}, which is not supported")
    return tuple(layer for layer, count in enumerate(by_layer) if not count)


def _windowed(family: Family, layers: int, pattern: object) -> tuple[int, ...]:
    if isinstance(pattern, list):
        return tuple(layer for layer, windowed in enumerate(pattern[:layers]) if windowed)
    return family.windowed(layers, pattern if isinstance(pattern, int) else family.window_pattern or 0)
