"""The engine that `thirteen` exports: its model is a file or has a name, as on the command line."""

import logging
from pathlib import Path
from typing import Unpack

from ..files.progress import Run
from ..runtime.engine import engine
from ..runtime.engine.config import DEFAULT_ADAPTER, EngineOptions, adapter_files
from .model_files import resolve

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
        adapter_files(options)  # refuses reserved names
        adapters = {**(options.get("adapters") or {})}
        if (adapter := options.get("adapter")) is not None:
            adapters[DEFAULT_ADAPTER] = adapter
        files = resolve(model, adapters, Run(options.get("threads")), _log.warning)
        options["adapters"] = found = dict(files.adapters)
        options["adapter"] = found.pop(DEFAULT_ADAPTER, None)
        super().__init__(files.model, **options)
