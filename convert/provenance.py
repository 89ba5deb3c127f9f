"""Provenance and metadata of a file: names and hashes of its inputs, and what loaders display."""

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

from gguf import GGML_QUANT_VERSION, GGUFValueType, LlamaFileType

from ..files.gguf.header import Field
from .quantize.importance import Importance
from .source.checkpoint import Checkpoint, quantized_types
from .source.model_metadata import metadata_fields
from .vocabulary.vocabulary_list import vocabulary_fields, vocabulary_of
from .write import write_arrays

_PHI3_TOKENS = ("</s>", "<unk>", "<s>", "<|endoftext|>")  # of llama-vocab.cpp
BASE_SHA256 = "thirteen.base.sha256"
_TEXT = GGUFValueType.STRING
# ggml types whose member of LlamaFileType is not MOSTLY_<type>
_FILE_TYPES = {"F32": "ALL_F32", "MXFP4": "MOSTLY_MXFP4_MOE"} | {
    name: f"MOSTLY_{name}_S" for name in ("Q3_K", "Q4_K", "Q5_K")
}


@dataclass(frozen=True)
class WeightsSource:
    """Origin of weights: their name in the provenance and the hash of their bytes."""

    id: str
    sha256: str


@dataclass(frozen=True)
class AdapterSource(WeightsSource):
    """Origin of an adapter."""

    kind: str  # such as lora, dora or tinylora
    rank: int | None  # the largest LoRA rank; None if PEFT merged it
    trained: int | None  # number of trained parameters; None if PEFT merged it
    merged_by: str  # `thirteen`, row by row, or `peft`, with the whole model in memory


def file_metadata(
    base: Checkpoint, adapter: AdapterSource | None, importance: Importance | None, requested: str
) -> dict[str, Field]:
    """Metadata of a GGUF, in the order of a file; BASE_SHA256 has a placeholder of the hash's length.

    `requested` is the type or size that was asked for, the value of thirteen.type.
    """
    texts = {"architecture": base.architecture.name, "type": "model", "name": _name(base)}
    fields = {f"general.{key}": Field(text, _TEXT) for key, text in texts.items()}
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
    fields |= {key: Field(value, _TEXT) for key, value in provenance_entries(values).items()}
    fields |= metadata_fields(base.architecture) | base.tokenizer
    kept = vocabulary_of(base)
    return fields | (vocabulary_fields(kept) if kept else {}) | {BASE_SHA256: Field("0" * 64, _TEXT)}


def write_tokenizer_file(base: Checkpoint, target: Path) -> None:
    """Write a GGUF of a base's tokenizer alone, for the runtime; OutputError if it cannot be written.

    Its only tensor is the first vector: a GGUF without any tensor is refused.
    """
    spec = next(spec for spec in base.specs.values() if len(spec.shape) == 1)
    vector = {spec.target: base.rows(spec.source, 0, spec.shape[0])}
    write_arrays(target, file_metadata(base, None, None, "F32"), vector, base.path)


def _name(base: Checkpoint) -> str:
    """The name of a base; llama.cpp sets attributes of Phi-3's tokens by the name, and fails without them."""
    renamed, tokens = re.sub("(?i)phi-?3", "phi_3", base.id), base.tokenizer["tokenizer.ggml.tokens"].value
    return base.id if renamed == base.id or set(tokens).issuperset(_PHI3_TOKENS) else renamed


def provenance_entries(values: Mapping[str, object]) -> dict[str, str]:
    """Entries `thirteen.*`; unknown values are omitted."""
    return {f"thirteen.{key}": str(value) for key, value in values.items() if value not in ("", None)}
