"""Adapters of an engine, by the names that requests give."""

from collections.abc import Mapping
from pathlib import Path

from ...errors import RequestError
from ..llama.model import LoraAdapter, Model
from ..request import BASE
from .config import DEFAULT_ADAPTER


class Adapters:
    """Loaded adapters by name; `base` is the model alone.

    Attributes:
        default: name of the adapter of requests that name none.
    """

    def __init__(self, model: Model) -> None:
        """Start without adapters."""
        self._model = model
        self._loaded: dict[str, LoraAdapter | None] = {BASE: None}
        self.default = BASE

    @property
    def names(self) -> tuple[str, ...]:
        """Names that a request can choose from."""
        return tuple(self._loaded)

    def __getitem__(self, name: str) -> LoraAdapter | None:
        return self._loaded[name]

    def __contains__(self, name: str) -> bool:
        return name in self._loaded

    def load(self, files: Mapping[str, Path]) -> None:
        """Load adapters.

        Raises:
            ModelFileError: a file is not a GGUF, or is damaged.
            AdapterError: an adapter does not fit the model.
        """
        for name, file in files.items():
            self._loaded[name] = LoraAdapter(self._model, file)
        if DEFAULT_ADAPTER in self._loaded:
            self.default = DEFAULT_ADAPTER

    def replace(self, name: str, adapter: LoraAdapter) -> LoraAdapter | None:
        """Register an adapter under a name, and return the one that had it."""
        old = self._loaded.get(name)
        self._loaded[name] = adapter
        return old

    def resolve(self, name: str | None) -> str:
        """Return the name, or the default for None.

        Raises:
            RequestError: no adapter has the name.
        """
        name = self.default if name is None else name
        if name not in self._loaded:
            raise RequestError(f"adapter: {name!r} is not one of {', '.join(self._loaded)}")
        return name

    def close(self) -> None:
        """Free the adapters."""
        for adapter in self._loaded.values():
            if adapter:
                adapter.close()
