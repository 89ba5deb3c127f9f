"""The architecture that the metadata of a GGUF describes, by the rules of llama.cpp's loader."""

from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

from gguf import GGUFValueType

from ...errors import FileError, shorten
from ...files.gguf.header import Header
from ...files.gguf.model_shape import MAX_COUNT, ModelShape, read_decoder_shape
from .architecture import CONSTANTS, OUTPUT, Architecture, check
from .families import FAMILIES, Family
from .model_config import number

UINT32 = GGUFValueType.UINT32
# Keys that llama.cpp reads for every graph, and the values that a conversion keeps, the default first.
_KEPT = {
    "rope.scaling.type": ("none", "linear", "longrope"),
    "attention.causal": (True,),
    "pooling_type": (0,),
    "rope.scaling.attn_factor": (1.0,),
}


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
    read = {CONSTANTS[field][0] for field in family.reads if field in CONSTANTS}
    for key, kept in _KEPT.items():
        if key not in read and (value := values.get(key, kept[0])) not in kept:
            raise FileError(f"{where}: {name}.{key} is {shorten(value)}, which a conversion would lose")

    convolved = _without_attention(values, where)
    shape = read_decoder_shape(header)
    shape.check(where)
    found: dict[str, Any] = {
        field: header.count(f"{name}.{key}", MAX_COUNT) if type_ is UINT32 else number(values, key, where)
        for field, (key, type_, _) in CONSTANTS.items()
        if field in family.reads and key in values
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
        **{field.name: getattr(shape, field.name) for field in fields(ModelShape)},
        name=family.name,
        rms_eps=number(values, "attention.layer_norm_rms_epsilon", where),
        rope_theta=number(values, "rope.freq_base", where, 10000.0),
        rope_linear=_linear_scaling(values, where),
        tied=OUTPUT not in header.tensors,
        biased=tuple(k for k in family.layer.values() if f"blk.0.{k}.bias" in header.tensors),
        **(dict(family.implied(shape)) | found),
    )
    check(architecture, where)
    return architecture


def _linear_scaling(values: Mapping[str, Any], where: str) -> float:
    """The divisor of all positions as llama.cpp reads it: also by its old key, and 0 for none."""
    key = "rope.scaling.factor" if "rope.scaling.factor" in values else "rope.scale_linear"
    if values.get("rope.scaling.type") == "none" or values.get(key) == 0:
        return 1.0
    return number(values, key, where, 1.0)


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
