"""What is in a GGUF file: sizes, types and provenance, told by its header alone."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path

from ..errors import ModelFileError, RequestError
from ..files.gguf_header import Header, read_header
from ..runtime.llama.memory_estimate import MemoryEstimate, estimate_memory
from ..runtime.llama.gguf_checks import check_model
from ..runtime.profile import KV_TYPES, PROFILES, Profile


@dataclass(frozen=True)
class TypeShare:
    """What one type takes of a file."""

    tensors: int
    weights: int
    nbytes: int


@dataclass(frozen=True)
class ProfileMemory:
    """What an engine will need for the file, told from its header."""

    context: int
    kv: str
    total_bytes: int
    parts: MemoryEstimate

    @property
    def text(self) -> str:
        """In a line."""
        parts = self.parts
        sizes = (
            *(("weights", parts.weights_bytes), ("laid out anew", parts.copied_bytes)),
            *(("keys and values", parts.kv_bytes), ("kept prompts", parts.prefix_bytes)),
        )
        named = ", ".join(f"{name} {nbytes / 1e6:,.0f}" for name, nbytes in sizes if nbytes)
        return f"{self.total_bytes / 1e6:,.0f} MB at {self.context} tokens in {self.kv} ({named}, the rest)"


@dataclass(frozen=True)
class Inspection:
    """The summary of one GGUF file."""

    path: str
    file_bytes: int
    architecture: str | None
    name: str | None
    weights: int
    bits_per_weight: float
    types: dict[str, TypeShare]  # the largest first
    metadata: dict[str, str | int | float | bool]  # the model's shape: its architecture's keys
    tokenizer: dict[str, str | int | float | bool]
    provenance: dict[str, str]  # the `thirteen.*` keys
    memory: dict[str, ProfileMemory]  # by profile; none for a file that this build cannot run


def memory_profiles(name: str | None, context: int | None, kv: str | None) -> dict[str, Profile]:
    """The profiles, or the named one, with another context or type of keys and values.

    Raises:
        RequestError: there is no such profile or type.
    """
    for what, given, known in (("profile", name, PROFILES), ("kv", kv, KV_TYPES)):
        if given is not None and given not in known:
            raise RequestError(f"{what}: {given!r} is not one of {', '.join(known)}")
    chosen = PROFILES if name is None else {name: PROFILES[name]}
    return {
        key: replace(profile, context=context or profile.context, kv=kv or profile.kv)
        for key, profile in chosen.items()
    }


def inspect_gguf(path: Path, profiles: Mapping[str, Profile] = PROFILES) -> Inspection:
    """Summarize the GGUF file at `path`.

    Args:
        path: the file.
        profiles: the rooms for which to tell the memory, by name.

    Raises:
        ModelFileError: it is no GGUF, or a damaged one.
    """
    header = read_header(path)
    tensors, metadata = header.tensors.values(), header.metadata
    nbytes: Counter[str] = Counter()
    for tensor in tensors:
        nbytes[tensor.type.name] += tensor.nbytes
    types = {
        name: TypeShare(
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
        memory=_memory(header, profiles),
    )


def _memory(header: Header, profiles: Mapping[str, Profile]) -> dict[str, ProfileMemory]:
    try:
        check_model(header)
    except ModelFileError:
        return {}
    wanted = {name: (profile, estimate_memory(header, profile)) for name, profile in profiles.items()}
    return {
        name: ProfileMemory(profile.context, profile.kv, parts.total_bytes, parts)
        for name, (profile, parts) in wanted.items()
    }
