"""Description of a served model in Ollama's API: its files, and the header of the model's file."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

from gguf import LlamaFileType

from ...files.gguf.header import Header
from ...files.hashing import file_sha256

Json = dict[str, Any]

_VALUE_CHARS_MAX = 1 << 12  # of a metadata value that is told; longer ones are templates and tokenizers


def timestamp(time_s: float) -> str:
    """A Unix time as in RFC 3339."""
    return datetime.fromtimestamp(time_s, UTC).isoformat().replace("+00:00", "Z")


def modified_at(paths: Sequence[Path]) -> str:
    """The last time that one of the files was changed."""
    return timestamp(max(path.stat().st_mtime for path in paths))


@dataclass(frozen=True, slots=True)
class ModelFiles:
    """The files of a served model, as they were when they were read.

    Attributes:
        size: their bytes.
        modified_at: the last time that one was changed.
        digest: SHA-256 of the file, or of the files' SHA-256 if there are two.
    """

    size: int
    modified_at: str
    digest: str

    @classmethod
    def read(cls, paths: Sequence[Path]) -> "ModelFiles":
        """Read the files once from start to end."""
        digests = [file_sha256(path) for path in paths]
        digest = digests[0] if len(digests) == 1 else sha256("".join(digests).encode()).hexdigest()
        return cls(sum(path.stat().st_size for path in paths), modified_at(paths), digest)


def model_details(header: Header) -> Json:
    """Architecture, size and type of a model."""
    family = header.metadata["general.architecture"]
    return {
        "parent_model": "",
        "format": "gguf",
        "family": family,
        "families": [family],
        "parameter_size": _parameter_size(header.weights),
        "quantization_level": _file_type(header),
    }


def _parameter_size(weights: int) -> str:
    return f"{weights / 1e9:.1f}B" if weights >= 1e9 else f"{weights / 1e6:.2f}M"


def _file_type(header: Header) -> str:
    try:
        name = str(LlamaFileType(header.metadata.get("general.file_type")).name)
    except ValueError:
        return "unknown"
    return name.removeprefix("MOSTLY_").removeprefix("ALL_")


def model_info(header: Header) -> Json:
    """Metadata of a file; null stands for arrays and long texts."""
    values = {key: _plain(value) for key, value in header.metadata.items()}
    return {**values, "general.parameter_count": header.weights}


def _plain(value: object) -> object:
    """A value that JSON can hold, or None."""
    match value:
        case str() if len(value) <= _VALUE_CHARS_MAX:
            return value.encode("utf-8", "replace").decode()
        case bool() | int() | float() if math.isfinite(value):
            return value
    return None


def chat_template(header: Header) -> str:
    """The chat template of a file; "" if there is none."""
    return str(header.metadata.get("tokenizer.chat_template", "")).encode("utf-8", "replace").decode()
