"""A run-time adapter as reports describe it."""

from dataclasses import dataclass
from pathlib import Path

from ...files.gguf.header import read_header
from ...files.hashing import file_sha256


@dataclass(frozen=True, slots=True)
class AdapterFile:
    """A LoRA in a GGUF file; `sha256` is in hexadecimal."""

    path: str
    file_bytes: int
    sha256: str


def describe_adapter(path: Path) -> AdapterFile:
    """Read the file's header and hash it.

    Raises:
        ModelFileError: the file is not a GGUF, or is damaged.
    """
    return AdapterFile(str(path), read_header(path).file_bytes, file_sha256(path))
