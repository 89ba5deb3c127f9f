"""A model to run as a person names it, and its adapters, found: files, whatever their form was."""

import logging
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from ..files.progress import QUIET, Run
from ..runtime.engine_options import EngineOptions
from ..runtime.options import DEFAULT_ADAPTER
from .base import local_path
from .catalogue import catalogue
from .converted import ADAPTER, NAME, Announce, converted_model, default_model

_log = logging.getLogger(__name__)

_HUB_ID = re.compile(r"[A-Za-z][\w-]*/[A-Za-z][\w.-]*")
_PATH_STARTS = ("./", "../", "/", "~")  # of a path that may not exist, rather than of a question


@dataclass(frozen=True, slots=True)
class ModelFiles:
    """The files of a model: a GGUF, and the GGUF LoRAs that apply to it at run time, by name."""

    model: Path
    adapters: Mapping[str, Path] = field(default_factory=dict)

    @property
    def adapter(self) -> Path | None:
        """The first adapter; None without any."""
        return next(iter(self.adapters.values()), None)

    def absolute(self) -> "ModelFiles":
        """The files by their absolute paths."""
        adapters = {name: path.absolute() for name, path in self.adapters.items()}
        return ModelFiles(self.model.absolute(), adapters)


def resolve(
    model: str | Path | None,
    adapters: Mapping[str, str | Path] | None = None,
    run: Run = QUIET,
    announce: Announce = lambda line: None,
) -> ModelFiles:
    """Find the files of a model; a base that is no GGUF is converted into the cache on first use.

    Args:
        model: a GGUF, a folder of safetensors, a catalogue name or a hub id, perhaps with `@revision`, or
            `embedded`. That, and None, is the embedded model, with its adapter merged unless others are
            given; its base alone has a name of the catalogue. A Path is a GGUF.
        adapters: by name; each a GGUF LoRA, a PEFT folder, a catalogue name, a hub id or a short code.
        run: how a conversion runs.
        announce: called with a line on what a first use will download and write.
    """
    if not adapters:
        return ModelFiles(_model(model, run, announce))
    from .adapter import find_adapter  # noqa: PLC0415 - not each model has an adapter

    model = NAME if model in (None, "embedded") else model
    # A wrong one is refused before the model is downloaded.
    found = {name: find_adapter(str(adapter), str(model)) for name, adapter in adapters.items()}
    path = _model(model, run, announce)
    return ModelFiles(path, {name: adapter.lora(path, run) for name, adapter in found.items()})


def engine_files(model: str | Path | None, options: EngineOptions) -> tuple[Path, EngineOptions]:
    """Find the files of an engine; see Engine.find_files and resolve()."""
    files = resolve(model, options.named_adapters, Run(options.threads), _log.warning)
    found = dict(files.adapters)
    return files.model, replace(options, adapter=found.pop(DEFAULT_ADAPTER, None), adapters=found)


def _model(source: str | Path | None, run: Run, announce: Announce) -> Path:
    if isinstance(source, Path):
        return source
    path = local_path(source) if source is not None else None
    if path is None and source in (None, "embedded", NAME):
        return default_model(None if source == NAME else ADAPTER, progress=run.when_needed("preparing"))
    if path is None or path.is_dir():
        return converted_model(source or "", path, run, announce)
    return path


def is_model_name(word: str) -> bool:
    """Whether a word is a model's file or name rather than a question."""
    name = word.partition("@")[0]
    return bool(
        name == "embedded"
        or name in catalogue().bases
        or (name.endswith(".gguf") and (" " not in name or os.path.isfile(word)))  # noqa: PTH113
        or _HUB_ID.fullmatch(name)
        or (name.startswith(_PATH_STARTS) and " " not in name)
        or os.path.isdir(word)  # noqa: PTH112 - a question may be long
    )
