"""The architecture that the metadata of a GGUF describes, by the rules of llama.cpp's loader."""

from collections.abc import Mapping
from typing import Any

from gguf import GGUFValueType

from ...errors import FileError, shorten
from ...files.gguf.header import Header
from ...files.gguf.metadata import CheckedMetadata
from ...files.gguf.model_shape import MAX_CONTEXT, MAX_LAYERS
from .architecture import CONSTANTS, OUTPUT, Architecture, check
from .config_values import COUNT_MAX, number
from .families import FAMILIES, Family
from .rope import FACTORS


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
    if FACTORS in header.tensors and "rope.freq_base" not in values:
        raise FileError(f"{where}: {FACTORS} without {name}.rope.freq_base")

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
    constants = {field: key for field, (key, _) in CONSTANTS.items() if field in family.reads}
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
        biased=tuple(k for k in family.layer.values() if f"blk.0.{k}.bias" in header.tensors),
        **({"scaling": None} | dict(family.implied(shape)) | found),
    )
    check(architecture, shape, where)
    return architecture


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
