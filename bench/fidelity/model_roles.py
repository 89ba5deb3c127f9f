"""The models of a fidelity measurement by role, loaded together, with one vocabulary or a part of it."""

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

from ...errors import RequestError
from ...files.gguf.header import read_header
from ...runtime.engine.engine import Engine
from .text_logits import load_for_logits
from .token_map import TokenMap, check_same_vocabulary

T = TypeVar("T")
U = TypeVar("U")
V = TypeVar("V")


@dataclass(frozen=True, slots=True)
class ModelRoles(Generic[T]):
    """One value per model; None for a model that is not measured.

    Attributes:
        reference: value of the adapted model in full precision.
        shipped: value of the same model quantized, with the adapter merged.
        base: value of the unadapted model in full precision.
        shipped_base: value of the unadapted model, quantized like the shipped one.
        run_time: value of `shipped_base` with the adapter applied at run time.
    """

    reference: T
    shipped: T
    base: T | None = None
    shipped_base: T | None = None
    run_time: T | None = None

    def map(self, function: Callable[[T], U]) -> "ModelRoles[U]":
        """Apply a function to each value."""
        return ModelRoles(
            function(self.reference),
            function(self.shipped),
            *(None if value is None else function(value) for value in self._optional),
        )

    def map_with(self, other: "ModelRoles[V]", function: Callable[[T, V], U]) -> "ModelRoles[U]":
        """Apply a function to the values of two ModelRoles with the same models."""
        values = iter(function(one, two) for one, two in zip(self.present, other.present, strict=True))
        return self.map(lambda _: next(values))

    @property
    def present(self) -> tuple[T, ...]:
        """Values of the models that are measured."""
        return self.reference, self.shipped, *(value for value in self._optional if value is not None)

    @property
    def variants(self) -> tuple[T, ...]:
        """Values of the two ways to ship the adapter: merged and, if measured, applied at run time."""
        return (self.shipped,) if self.run_time is None else (self.shipped, self.run_time)

    @property
    def _optional(self) -> tuple[T | None, T | None, T | None]:
        return self.base, self.shipped_base, self.run_time


@dataclass(frozen=True, slots=True)
class ModelSource:
    """A model file, and the adapter that is applied to it at run time."""

    model: Path
    adapter: Path | None = None


def model_sources(
    reference: Path,
    shipped: Path,
    *,
    base: Path | None = None,
    shipped_base: Path | None = None,
    adapter: Path | None = None,
) -> ModelRoles[ModelSource]:
    """Assign GGUF files to the roles of ModelRoles.

    Args:
        reference: the adapted model in full precision.
        shipped: the same model quantized, with the adapter merged.
        base: the unadapted model in full precision. With `shipped_base`, the adapter's effect is measured.
        shipped_base: the unadapted model, quantized like `shipped`.
        adapter: a LoRA for `shipped_base`, to compare merging with applying it at run time.

    Raises:
        RequestError: a file is missing that another one needs.
    """
    if (base is None) != (shipped_base is None):
        given, missing = ("base", "shipped base") if shipped_base is None else ("shipped base", "base")
        raise RequestError(
            f"bench fidelity: a {given} is given but no {missing}; the adapter's effect needs both"
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


def load_models(
    models: ModelRoles[ModelSource], threads: int | None, handles: ExitStack
) -> tuple[ModelRoles[Engine], ModelRoles[TokenMap]]:
    """Load the models, and compare their vocabularies; `handles` closes them.

    Roles with the same source share an engine.

    Raises:
        ModelFileError: a file is not a GGUF, is damaged, cannot be run by this build, or has tokens that the
            reference lacks.
        AdapterError: the adapter does not fit its model.
        RequestError: the number of threads is out of range.
    """
    tokens, loaded = token_maps(models), dict[ModelSource, Engine]()

    def load(source: ModelSource, mapped: TokenMap) -> Engine:
        if source not in loaded:
            engine = load_for_logits(source.model, threads, source.adapter, expansion=mapped.expansion)
            loaded[source] = handles.enter_context(engine)
        return loaded[source]

    return models.map_with(tokens, load), tokens


def token_maps(models: ModelRoles[ModelSource]) -> ModelRoles[TokenMap]:
    """Compare the vocabularies: a shipped file may keep a part of the reference's, the base has all of it.

    Raises:
        ModelFileError: a file has other tokens than the reference, or the shipped files differ.
    """
    headers = models.map(lambda source: read_header(source.model, skip_values=("tokenizer.ggml.merges",)))
    if headers.base:
        check_same_vocabulary(headers.reference, headers.base)
    if headers.shipped_base:
        check_same_vocabulary(headers.shipped, headers.shipped_base)
    return headers.map(lambda header: TokenMap(headers.reference, header))
