"""Adapters of an engine, by the names that requests give."""

from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Self

from ...errors import RequestError
from ...files.received_files import PROMPT_KEY
from ..llama.model import LoraAdapter, Model
from ..prompt.question_prompt import PLAIN, QuestionPrompt
from ..request import BASE, DEFAULT_ADAPTER
from ..validation import check_type


class Adapters(dict[str, LoraAdapter | None]):
    """Loaded adapters by name; `base` is the model alone."""

    @classmethod
    def load(cls, model: Model, files: Mapping[str, Path]) -> Self:
        """Load the adapters of a model; see LoraAdapter."""
        with ExitStack() as handles:
            loaded = {name: handles.enter_context(LoraAdapter(model, path)) for name, path in files.items()}
            handles.pop_all()
        return cls({BASE: None, **loaded})

    @property
    def default(self) -> str:
        """Name of the adapter of requests that name none."""
        return DEFAULT_ADAPTER if DEFAULT_ADAPTER in self else BASE

    def resolve(self, name: str | None) -> str:
        """Return the name, or the default for None.

        Raises:
            RequestError: no adapter has the name.
        """
        if name is not None:
            check_type("adapter", name, str)
        name = self.default if name is None else name
        if name not in self:
            raise RequestError(f"adapter: {name!r} is not one of {', '.join(self)}")
        return name

    def prompt(self, name: str | None) -> QuestionPrompt:
        """The prompt that an adapter was learned with, plain by default; see resolve().

        Raises:
            FileError: that of its file is none.
        """
        adapter = self[self.resolve(name)]
        if not adapter:
            return PLAIN
        return QuestionPrompt.parse(str(adapter.metadata.get(PROMPT_KEY, "")), str(adapter.path))

    def close(self) -> None:
        """Free the adapters."""
        for adapter in self.values():
            if adapter:
                adapter.close()
