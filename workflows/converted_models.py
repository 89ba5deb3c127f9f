"""Bases that were converted into the cache, on the first use of their names."""

import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from ..errors import FileError, RequestError
from ..files.cache_folder import cache_dir, cache_key
from ..files.output import make_folder
from ..files.progress import QUIET, Run
from ..models.catalogue import catalogue

DEFAULT_SIZE = "4.5bpw"  # of a base outside the catalogue
_BYTES_PER_PARAMETER = 2  # of published weights
_NOT_IN_NAMES = re.compile(r"[^\w.@-]")
Announce = Callable[[str], None]


@dataclass(frozen=True)
class CachedModel:
    """A converted model in the cache.

    Attributes:
        name: its name in the cache.
        base: the base, as it was named.
        path: the GGUF.
        file_bytes: its size.
        bits_per_weight: mean over all tensors.
        tokens: size of its vocabulary.
        converted_at: Unix time in seconds.
    """

    name: str
    base: str
    path: Path
    file_bytes: int
    bits_per_weight: float
    tokens: int
    converted_at: float


def converted_model(base: str, folder: Path | None, run: Run, announce: Announce) -> Path:
    """Find the GGUF of a base that has none; it is converted into the cache on first use.

    Args:
        base: a folder of safetensors, a catalogue name or a hub id, perhaps with `@revision`.
        folder: the folder, if it is one.
        run: how the conversion runs.
        announce: called with a line on what a first use will download and write.

    Raises:
        ThirteenError: the name is unknown, the download fails, or the size is impossible.
    """
    # What an answer does not need, and takes a third of a second.
    from ..convert.source.checkpoint import open_checkpoint  # noqa: PLC0415
    from .conversion import run_conversion  # noqa: PLC0415
    from .conversion_request import ConversionRequest  # noqa: PLC0415

    entry = None
    if folder:
        open_checkpoint(folder)  # nothing is announced of one that is no checkpoint, nor of an unknown name
    elif "/" not in base:
        entry = catalogue().base(base.partition("@")[0])
    size = entry.size if entry else DEFAULT_SIZE
    named = f"{base}@{entry.revision[:8]}" if entry and "@" not in base else base  # a release may pin another
    name = f"{folder.resolve().name}-{_content_key(folder)}" if folder else named
    output = _folder() / f"{_NOT_IN_NAMES.sub('--', name)}-{size}.gguf"
    if not output.exists():
        request = ConversionRequest(base=base, output=output, size=size, fidelity=False)
        announce(_announcement(base, folder is None, entry.parameters if entry else None, size))
        run_conversion(request.resolve(run), run)
    return output


def trimmed_model(model: Path, run: Run = QUIET) -> Path:
    """Find the copy of a GGUF in the cache that keeps 49,152 tokens.

    It is the model itself if that has no more, or if its tokenizer cannot be trimmed.

    Raises:
        ThirteenError: the model is invalid, or the cache cannot be written.
    """
    from ..convert.vocabulary.tokenizer_tables import TokenizerTables  # noqa: PLC0415 - see converted_model()
    from ..files.gguf.header import read_header  # noqa: PLC0415
    from ..files.hashing import file_sha256  # noqa: PLC0415
    from .conversion import run_conversion  # noqa: PLC0415
    from .conversion_request import ConversionRequest  # noqa: PLC0415
    from .vocabulary.vocabulary_choice import DEFAULT_SIZE as VOCABULARY  # noqa: PLC0415

    header = read_header(model)
    try:
        tables = TokenizerTables.from_fields(header.fields, str(model))
    except FileError:  # of another kind of tokenizer
        return model
    if len(tables.tokens) <= VOCABULARY:
        return model
    output = _folder() / f"{model.stem}-{file_sha256(model)[:8]}-{VOCABULARY}.gguf"
    if not output.exists():
        request = ConversionRequest(
            base=str(model), output=output, type="same", vocabulary=str(VOCABULARY), fidelity=False
        )
        run_conversion(request.resolve(run), run)
    return output


def _content_key(folder: Path) -> str:
    """Changes when a file of the folder does; hashing all weights would take seconds at each start."""
    stats = [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in sorted(folder.iterdir())]
    return cache_key(folder.resolve(), stats)[:8]


def cached_models() -> list[CachedModel]:
    """The converted models in the cache, the newest first; damaged files are left out."""
    found = []
    for path in _folder().glob("*.gguf"):
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


def _folder() -> Path:
    folder = cache_dir() / "models"
    make_folder(folder)
    return folder


def _announcement(base: str, is_remote: bool, parameters: int | None, size: str) -> str:
    nbytes = "" if parameters is None else f" of about {parameters * _BYTES_PER_PARAMETER / 1e9:.1f} GB"
    download = f"a download{nbytes}, unless the hub's cache has it, then " if is_remote else ""
    return f"{base}: {download}a conversion to {size}. Later it starts at once."


def _cached_model(path: Path) -> CachedModel:
    from ..files.gguf.header import read_header  # noqa: PLC0415 - see converted_model()

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
