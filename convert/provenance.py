"""Provenance and metadata of a file: names and hashes of its inputs, and what loaders display."""

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

from gguf import GGML_QUANT_VERSION, GGUFValueType, LlamaFileType

from ..files.gguf.header import Field
from .quantize.importance import Importance
from .source.architecture import metadata_fields
from .source.checkpoint import Checkpoint, quantized_types
from .vocabulary.vocabulary_metadata import vocabulary_fields, vocabulary_of

_TEXT = GGUFValueType.STRING
# ggml types whose member of LlamaFileType is not MOSTLY_<type>
_FILE_TYPES = {"F32": "ALL_F32", "MXFP4": "MOSTLY_MXFP4_MOE"} | {
    name: f"MOSTLY_{name}_S" for name in ("Q3_K", "Q4_K", "Q5_K")
}


@dataclass(frozen=True)
class SourceIds:
    """Names of the inputs in the provenance of a file.

    Attributes:
        base: name of the base; by default that of its folder or file.
        adapter: name of the adapter; by default that of its folder.
    """

    base: str = ""
    adapter: str = ""


DEFAULT_IDS = SourceIds()


def provenance_name(source: str) -> str:
    """The name of a base or an adapter in the provenance: as given, or the last part of a path."""
    # Path.exists() raises for a code that is too long for the file system.
    return Path(source).resolve().name if source and os.path.exists(source) else source  # noqa: PTH110


@dataclass(frozen=True)
class WeightsSource:
    """Origin of weights: their name in the provenance and the hash of their bytes."""

    id: str
    sha256: str


@dataclass(frozen=True)
class AdapterSource(WeightsSource):
    """Origin of an adapter.

    Attributes:
        kind: such as lora, dora or tinylora.
        rank: the largest LoRA rank; None if PEFT merged it.
        trained: number of trained parameters; None if PEFT merged it.
        merged_by: `thirteen`, row by row, or `peft`, with the whole model in memory.
    """

    kind: str
    rank: int | None
    trained: int | None
    merged_by: str


def file_metadata(
    base: Checkpoint,
    adapter: AdapterSource | None,
    importance: Importance | None,
    requested: str,
    base_sha256: str,
) -> dict[str, Field]:
    """Metadata of a GGUF.

    Args:
        base: the base.
        adapter: origin of the adapter, if any.
        importance: the importance, if any.
        requested: value of thirteen.type: the type or size that was requested.
        base_sha256: hash of the base.
    """
    fields = {"general.type": Field("model", _TEXT), "general.name": Field(base.id, _TEXT)}
    # A mix planned for a size has no member there. Loaders only display the value.
    file_type = LlamaFileType.__members__.get(_FILE_TYPES.get(requested, f"MOSTLY_{requested}"))
    if file_type is not None:
        fields["general.file_type"] = Field(int(file_type), GGUFValueType.UINT32)
    fields["general.quantization_version"] = Field(GGML_QUANT_VERSION, GGUFValueType.UINT32)
    values: dict[str, object] = {
        "version": version("thirteen"),
        "quantizer": f"llama-cpp-python {version('llama-cpp-python')}",
        "type": requested,
        "base.id": base.id,
        "base.quantized": ", ".join(quantized_types(base)),
    }
    if adapter:
        values |= {f"adapter.{key}": value for key, value in asdict(adapter).items()}
    if importance:
        datasets = ", ".join(importance.datasets)
        values |= {"importance.sha256": importance.sha256, "importance.datasets": datasets}
    fields |= _text_fields(values) | metadata_fields(base.architecture) | base.tokenizer
    kept = vocabulary_of(base)
    return fields | (vocabulary_fields(kept) if kept else {}) | _text_fields({"base.sha256": base_sha256})


def _text_fields(values: Mapping[str, object]) -> dict[str, Field]:
    return {key: Field(value, _TEXT) for key, value in provenance_entries(values).items()}


def provenance_entries(values: Mapping[str, object]) -> dict[str, str]:
    """Entries `thirteen.*`; unknown values are omitted."""
    return {f"thirteen.{key}": str(value) for key, value in values.items() if value not in ("", None)}
