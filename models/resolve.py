"""A model to run as a person names it, and its adapters, found: files, whatever their form was."""

import logging
import os
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from ..errors import FileError, RequestError
from ..files.cache_folder import cache_dir, cache_key, cached
from ..files.gguf.header import read_header
from ..files.progress import QUIET, Run
from ..files.received_files import file_sha256
from ..runtime.engine_options import EngineOptions
from ..runtime.options import DEFAULT_ADAPTER
from .base import local_path
from .catalogue import catalogue
from .embedded import ADAPTER, NAME, default_model

# Modules that an answer does not need, and that take a third of a second, are imported where they are used.

Announce = Callable[[str], None]
DEFAULT_SIZE = "4.5bpw"  # of a base outside the catalogue
_BYTES_PER_PARAMETER = 2  # of published weights
_NOT_IN_NAMES = re.compile(r"[^\w.@-]")
_HUB_ID = re.compile(r"[A-Za-z][\w-]*/[A-Za-z][\w.-]*")
_PATH_STARTS = ("./", "../", "/", "~")  # of a path that may not exist, rather than of a question
_log = logging.getLogger(__name__)


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


def converted_model(base: str, folder: Path | None, run: Run, announce: Announce) -> Path:
    """Find the GGUF of a base that has none; it is converted into the cache on first use."""
    from ..convert.source.checkpoint import open_checkpoint  # noqa: PLC0415
    from .conversion import ConversionRequest, write_model  # noqa: PLC0415

    entry = None
    if folder:
        open_checkpoint(folder)  # nothing is announced of one that is no checkpoint, nor of an unknown name
    elif "/" not in base:
        entry = catalogue().base(base.partition("@")[0])
    size = entry.size if entry else DEFAULT_SIZE
    named = f"{base}@{entry.revision[:8]}" if entry and "@" not in base else base  # a release may pin another
    name = f"{folder.resolve().name}-{_content_key(folder)}" if folder else named

    def make(output: Path) -> None:
        announce(_announcement(base, folder is None, entry.parameters if entry else None, size))
        write_model(ConversionRequest(base=base, output=output, size=size), run)

    return cached(f"models/{_NOT_IN_NAMES.sub('--', name)}-{size}.gguf", make)


def _announcement(base: str, is_remote: bool, parameters: int | None, size: str) -> str:
    nbytes = "" if parameters is None else f" of about {parameters * _BYTES_PER_PARAMETER / 1e9:.1f} GB"
    download = f"a download{nbytes}, unless the hub's cache has it, then " if is_remote else ""
    return f"{base}: {download}a conversion to {size}. Later it starts at once."


def _content_key(folder: Path) -> str:
    """Changes when a file of the folder does; hashing all weights would take seconds at each start."""
    stats = [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in sorted(folder.iterdir())]
    return cache_key(folder.resolve(), stats)[:8]


def trimmed_model(model: Path, run: Run = QUIET) -> Path:
    """Find the copy of a GGUF in the cache that keeps 49,152 tokens.

    It is the model itself if that has no more, or if its tokenizer cannot be trimmed.
    """
    from ..convert.vocabulary.tokenizer_tables import TokenizerTables  # noqa: PLC0415
    from .conversion import ConversionRequest, write_model  # noqa: PLC0415
    from .vocabulary_choice import DEFAULT_SIZE as VOCABULARY  # noqa: PLC0415

    try:
        tables = TokenizerTables.from_fields(read_header(model).fields, str(model))
    except FileError:  # of another kind of tokenizer
        return model
    if len(tables.tokens) <= VOCABULARY:
        return model
    request = ConversionRequest(base=str(model), type="same", vocabulary=VOCABULARY)
    return cached(
        f"models/{model.stem}-{file_sha256(model)[:8]}-{VOCABULARY}.gguf",
        lambda output: write_model(replace(request, output=output), run),
    )


@dataclass(frozen=True)
class CachedModel:
    """A converted model in the cache."""

    name: str  # its name in the cache
    base: str  # the base, as it was named
    path: Path  # the GGUF
    file_bytes: int  # its size
    bits_per_weight: float  # mean over all tensors
    tokens: int  # size of its vocabulary
    converted_at: float  # Unix time in seconds


def cached_models() -> list[CachedModel]:
    """The converted models in the cache, the newest first; damaged files are left out."""
    found = []
    for path in (cache_dir() / "models").glob("*.gguf"):
        with suppress(FileError):
            found.append(_cached_model(path))
    return sorted(found, key=lambda model: model.converted_at, reverse=True)


def remove_model(name: str) -> CachedModel:
    """Delete a model from the cache; what was downloaded for it stays in the hub's cache.

    Raises:
        RequestError: there is none of this name.
    """
    models = {model.name: model for model in cached_models()}
    if name not in models:
        raise RequestError(f"{name!r} is not in the cache, which has {', '.join(models) or 'no models'}")
    models[name].path.unlink(missing_ok=True)
    return models[name]


def _cached_model(path: Path) -> CachedModel:
    header = read_header(path)
    base = header.metadata.get("thirteen.base.id")
    tokens = header.metadata.get("tokenizer.ggml.tokens")
    if not isinstance(base, str) or not isinstance(tokens, Sequence):
        raise FileError(f"{path}: was not converted here")
    return CachedModel(
        name=path.stem,
        base=base,
        path=path,
        file_bytes=header.file_bytes,
        bits_per_weight=header.bits_per_weight,
        tokens=len(tokens),
        converted_at=path.stat().st_mtime,
    )
