"""A model's file and its run-time adapter as reports describe them."""

from dataclasses import dataclass
from pathlib import Path

from ..files.gguf.header import read_header
from ..files.hashing import file_sha256


@dataclass(frozen=True, slots=True)
class AdapterFile:
    """A LoRA in a GGUF file; `sha256` is in hexadecimal."""

    path: str
    file_bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class ModelFile:
    """A model file, and the adapter that was applied to it at run time.

    Attributes:
        path: model file.
        file_bytes: size of that file.
        weights: number of weights in its tensors.
        bits_per_weight: mean over all tensors.
        sha256: hash of the file, in hexadecimal.
        adapter: the run-time adapter; None without one.
    """

    path: str
    file_bytes: int
    weights: int
    bits_per_weight: float
    sha256: str
    adapter: AdapterFile | None

    @property
    def total_bytes(self) -> int:
        """Size of the model file and the adapter together."""
        return self.file_bytes + (self.adapter.file_bytes if self.adapter else 0)


def describe_model(model: Path, adapter: Path | None = None) -> ModelFile:
    """Read the headers of the files and hash them.

    Raises:
        FileError: a file is not a GGUF, or is damaged.
    """
    header, described = read_header(model), None
    if adapter:
        described = AdapterFile(str(adapter), read_header(adapter).file_bytes, file_sha256(adapter))
    return ModelFile(
        path=str(model),
        file_bytes=header.file_bytes,
        weights=header.weights,
        bits_per_weight=header.bits_per_weight,
        sha256=file_sha256(model),
        adapter=described,
    )
