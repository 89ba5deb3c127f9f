"""The engine that `thirteen` exports: its model is a file or has a name, as on the command line."""

import logging
from pathlib import Path
from typing import Unpack

from ..runtime.engine import engine
from ..runtime.engine.config import EngineOptions
from .model_cache import resolve_model

_log = logging.getLogger(__name__)


class Engine(engine.Engine):
    """A model that answers many requests at once, from any thread; see the methods of its base."""

    def __init__(self, model: str | Path, **options: Unpack[EngineOptions]) -> None:
        """Load a model; a base that is no GGUF is converted on first use.

        Args:
            model: a GGUF, or as text also a folder of safetensors, a catalogue name, a hub id or `embedded`.
            options: see EngineOptions; an adapter is also a PEFT folder, a short code or a name.

        Raises:
            ThirteenError: the model or the adapter cannot be found, converted or loaded.
        """
        if isinstance(model, str):
            model = resolve_model(model, threads=options.get("threads"), announce=_log.warning)
        if (adapter := options.get("adapter")) is not None:
            options["adapter"] = _lora(adapter, Path(model))
        if adapters := options.get("adapters"):
            options["adapters"] = {name: _lora(one, Path(model)) for name, one in adapters.items()}
        super().__init__(model, **options)


def _lora(adapter: str | Path, model: Path) -> Path:
    from .adapter_resolver import resolve_runtime_lora  # noqa: PLC0415 - not each engine has an adapter

    return resolve_runtime_lora(str(adapter), model)
