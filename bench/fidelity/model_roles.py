"""The models of a fidelity measurement: which there are, loaded together, with one vocabulary."""

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

from ...errors import RequestError
from ...files.gguf_header import read_header
from ...files.hashing import file_sha256
from ...runtime.engine.engine import Engine
from ..harness.adapter_file import AdapterFile
from .text_logits import check_vocabulary, open_reader

T = TypeVar("T")
U = TypeVar("U")


@dataclass(frozen=True, slots=True)
class ModelRoles(Generic[T]):
    """One thing of each model; None where there is no such model.

    Attributes:
        reference: of the adapted model in full precision.
        shipped: of the same quantized, the adapter merged.
        base: of the unadapted model in full precision.
        shipped_base: of the unadapted model, quantized as the shipped one is.
        run_time: of that one with the adapter at run time.
    """

    reference: T
    shipped: T
    base: T | None = None
    shipped_base: T | None = None
    run_time: T | None = None

    def map(self, function: Callable[[T], U]) -> "ModelRoles[U]":
        """What a function makes of each."""
        return ModelRoles(
            function(self.reference),
            function(self.shipped),
            *(None if thing is None else function(thing) for thing in self._optional),
        )

    @property
    def present(self) -> tuple[T, ...]:
        """Those that there are."""
        return self.reference, self.shipped, *(thing for thing in self._optional if thing is not None)

    @property
    def ways(self) -> tuple[T, ...]:
        """Of the ways to ship the adapter: merged and, where there is that model, at run time."""
        return (self.shipped,) if self.run_time is None else (self.shipped, self.run_time)

    @property
    def _optional(self) -> tuple[T | None, T | None, T | None]:
        return self.base, self.shipped_base, self.run_time


@dataclass(frozen=True, slots=True)
class ModelSource:
    """A model's file, and what is applied to it at run time."""

    model: Path
    adapter: Path | None = None


@dataclass(frozen=True, slots=True)
class ModelFile:
    """A model that was measured: its file, and what was applied to it at run time."""

    path: str
    file_bytes: int
    bits_per_weight: float
    sha256: str
    adapter: AdapterFile | None


def model_sources(
    reference: Path, shipped: Path, base: Path | None, shipped_base: Path | None, adapter: Path | None
) -> ModelRoles[ModelSource]:
    """The models that these files make.

    Raises:
        RequestError: they do not go together.
    """
    if (base is None) != (shipped_base is None):
        given, missing = ("base", "shipped base") if shipped_base is None else ("shipped base", "base")
        raise RequestError(
            f"bench fidelity: a {given} is given but no {missing}; the adapter's effect takes both"
        )
    if shipped_base is None and adapter is not None:
        raise RequestError(
            f"bench fidelity: {adapter}: an adapter is given, but no shipped base to apply it to"
        )
    return ModelRoles(
        ModelSource(reference),
        ModelSource(shipped),
        None if base is None else ModelSource(base),
        None if shipped_base is None else ModelSource(shipped_base),
        None if shipped_base is None or adapter is None else ModelSource(shipped_base, adapter),
    )


def describe_model(source: ModelSource) -> ModelFile:
    """Read the files' headers, and hash them."""
    header, adapter = read_header(source.model), source.adapter
    applied = (
        AdapterFile(str(adapter), read_header(adapter).file_bytes, file_sha256(adapter)) if adapter else None
    )
    return ModelFile(
        path=str(source.model),
        file_bytes=header.file_bytes,
        bits_per_weight=header.bits_per_weight,
        sha256=file_sha256(source.model),
        adapter=applied,
    )


def load_models(
    models: ModelRoles[ModelSource], threads: int | None, handles: ExitStack
) -> ModelRoles[Engine]:
    """Load the models, to be closed by `handles`.

    Raises:
        ModelFileError: a file is not a GGUF, is damaged, cannot be run by this build, or has a vocabulary
            other than the reference's.
        AdapterError: the adapter is not one for its model.
        RequestError: a number is out of bounds.
    """
    engines = models.map(
        lambda source: handles.enter_context(open_reader(source.model, threads, source.adapter))
    )
    for other in engines.present[1:]:
        check_vocabulary(engines.reference.model.header, other.model.header)
    return engines
