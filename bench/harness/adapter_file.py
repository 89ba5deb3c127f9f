"""A run-time adapter file as reports name it: path, size and hash."""

from dataclasses import dataclass
from pathlib import Path

from ...files.gguf_header import read_header
from ...files.hashing import file_sha256


@dataclass(frozen=True, slots=True)
class AdapterFile:
    """A run-time adapter."""

    path: str
    file_bytes: int
    sha256: str


def _describe_adapter(path: Path) -> AdapterFile:
    return AdapterFile(str(path), read_header(path).file_bytes, file_sha256(path))
