"""What is in a GGUF file: sizes, types and provenance, told by its header alone."""

from collections import Counter
from dataclasses import dataclass
from math import prod
from pathlib import Path

from .gguf_file import read_header


@dataclass(frozen=True)
class Share:
    """What one type takes of a file."""

    tensors: int
    weights: int
    nbytes: int


@dataclass(frozen=True)
class Inspection:
    """The summary of one GGUF file."""

    path: str
    file_bytes: int
    architecture: str | None
    name: str | None
    weights: int
    bits_per_weight: float
    types: dict[str, Share]  # the largest first
    metadata: dict[str, str | int | float | bool]  # the model's shape: its architecture's keys
    tokenizer: dict[str, str | int | float | bool]
    provenance: dict[str, str]  # the `thirteen.*` keys


def inspect(path: Path) -> Inspection:
    """Summarize the GGUF file at `path`.

    Raises:
        ModelFileError: it is no GGUF, or a damaged one.
    """
    header = read_header(path)
    tensors, metadata = header.tensors.values(), header.metadata
    nbytes: Counter[str] = Counter()
    for tensor in tensors:
        nbytes[tensor.type.name] += tensor.nbytes
    types = {
        name: Share(
            tensors=sum(t.type.name == name for t in tensors),
            weights=sum(prod(t.shape) for t in tensors if t.type.name == name),
            nbytes=size,
        )
        for name, size in nbytes.most_common()
    }

    def under(prefix: str) -> dict[str, str | int | float | bool]:
        return {
            key.removeprefix(prefix): value
            for key, value in metadata.items()
            if key.startswith(prefix) and not isinstance(value, list)
        }

    architecture = metadata.get("general.architecture")
    return Inspection(
        path=str(path),
        file_bytes=header.file_bytes,
        architecture=architecture,
        name=metadata.get("general.name"),
        weights=header.weights,
        bits_per_weight=header.bits_per_weight,
        types=types,
        metadata=under(f"{architecture}."),
        tokenizer=under("tokenizer.ggml."),
        provenance={key: str(value) for key, value in under("thirteen.").items()},
    )
