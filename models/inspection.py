"""Summary of a GGUF from its header: sizes, types, provenance and memory."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from gguf import GGUFValueType

from ..convert.write import FileLayout
from ..errors import FileError
from ..files.gguf.header import Header, read_header
from ..runtime.engine_options import PROFILES, EngineOptions
from ..runtime.llama.model import check_model_header
from ..runtime.llama.settings import LLAMA, Settings
from ..runtime.memory import MemoryEstimate, estimate_memory

Scalar = str | int | float | bool


@dataclass(frozen=True)
class ProfileMemory:
    """Estimated memory of an engine that runs the file."""

    context: int  # tokens of the context
    kv: str  # type of the KV cache
    total_bytes: int  # sum of the parts
    parts: MemoryEstimate  # memory by purpose

    @property
    def text(self) -> str:
        return f"{self.parts.text} at {self.context} tokens in {self.kv}"


@dataclass(frozen=True)
class Inspection:
    """Summary of a GGUF.

    Attributes:
        memory: estimated memory by profile; empty for a file that this build cannot run.
    """

    path: Path  # the file
    layout: FileLayout  # its size, tensors and types
    architecture: str | None  # general.architecture
    name: str | None  # general.name
    metadata: dict[str, Scalar]  # keys of the architecture
    tokenizer: dict[str, Scalar]  # keys of the tokenizer
    provenance: dict[str, str]  # the `thirteen.*` keys
    memory: dict[str, ProfileMemory]


def memory_profiles(context: int | None = None) -> dict[str, Settings]:
    """The profiles to estimate memory for, with a context of so many tokens instead of their own."""
    return {key: EngineOptions(profile=key, context=context, library=LLAMA).settings() for key in PROFILES}


def inspect_gguf(path: Path, profiles: Mapping[str, Settings]) -> Inspection:
    """Summarize a GGUF.

    Raises:
        FileError: the file is not a GGUF, or is damaged.
    """
    header = read_header(path)
    architecture = header.metadata.get("general.architecture")
    return Inspection(
        path=path,
        layout=FileLayout.of(header),
        architecture=architecture,
        name=header.metadata.get("general.name"),
        metadata=_scalars(header, f"{architecture}."),
        tokenizer=_scalars(header, "tokenizer.ggml."),
        provenance={key: str(value) for key, value in _scalars(header, "thirteen.").items()},
        memory=_memory(header, profiles),
    )


def _scalars(header: Header, prefix: str) -> dict[str, Scalar]:
    """The metadata under a prefix, without arrays."""
    return {
        key.removeprefix(prefix): field.value
        for key, field in header.fields.items()
        if key.startswith(prefix) and field.type is not GGUFValueType.ARRAY
    }


def _memory(header: Header, profiles: Mapping[str, Settings]) -> dict[str, ProfileMemory]:
    try:
        check_model_header(header)
        parts = {name: estimate_memory(header, one) for name, one in profiles.items()}
    except FileError:
        return {}
    return {
        name: ProfileMemory(one.context, one.kv, parts[name].total_bytes, parts[name])
        for name, one in profiles.items()
    }
