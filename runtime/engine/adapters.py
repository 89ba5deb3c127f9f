"""Adapters of an engine, by the names that requests give."""

from collections.abc import Mapping
from pathlib import Path

from ...errors import RequestError
from ..llama.model import LoraAdapter, Model
from ..request import BASE
from .config import DEFAULT_ADAPTER


class Adapters(dict[str, LoraAdapter | None]):
    """Loaded adapters by name; `base` is the model alone.

    Attributes:
        default: name of the adapter of requests that name none.
    """

    def __init__(self) -> None:
        super().__init__({BASE: None})
        self.default = BASE

    def load(self, model: Model, files: Mapping[str, Path]) -> None:
        """Load adapters of a model.

        Raises:
            ModelFileError: a file is not a GGUF, or is damaged.
            AdapterError: an adapter does not fit the model.
        """
        for name, file in files.items():
            self[name] = LoraAdapter(model, file)
        if DEFAULT_ADAPTER in self:
            self.default = DEFAULT_ADAPTER

    def resolve(self, name: str | None) -> str:
        """Return the name, or the default for None.

        Raises:
            RequestError: no adapter has the name.
        """
        name = self.default if name is None else name
        if name not in self:
            raise RequestError(f"adapter: {name!r} is not one of {', '.join(self)}")
        return name

    def close(self) -> None:
        """Free the adapters."""
        for adapter in self.values():
            if adapter:
                adapter.close()
