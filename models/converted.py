"""Models that are converted into the cache on the first use of their names, the embedded one among them."""

import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from ..errors import FileError, OutputError, RequestError
from ..files.cache_folder import cache_dir, cache_key, cached
from ..files.progress import QUIET, Progress, Run, no_progress
from .catalogue import adapter_folder, catalogue

# Modules that an answer does not need, and that take a third of a second, are imported where they are used.

NAME = "smollm2-135m"
ADAPTER = "smollm2-135m-sums-840"
DEFAULT_SIZE = "4.5bpw"  # of a base outside the catalogue
# The embedded model has 4-bit weights. 8 bits preserve them almost exactly, and the adapter too.
_EMBEDDED_TYPE = "Q8_0"
_SHORT_NAMES = {ADAPTER: "smollm2-135m-sums"}
_BYTES_PER_PARAMETER = 2  # of published weights
_NOT_IN_NAMES = re.compile(r"[^\w.@-]")
_WORDS_MAX = 40  # the longest question of lab/sums.py has half of them
_NUMBER = re.compile(r"\d+(?:[.,]\d+)*")
_NOT_ONE_STEP = re.compile(r"%|\bper ?cent|\bhalf\b|\btwice\b", re.IGNORECASE)
Announce = Callable[[str], None]


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


def trimmed_model(model: Path, run: Run = QUIET) -> Path:
    """Find the copy of a GGUF in the cache that keeps 49,152 tokens.

    It is the model itself if that has no more, or if its tokenizer cannot be trimmed.
    """
    from ..convert.vocabulary.tokenizer_tables import TokenizerTables  # noqa: PLC0415
    from ..files.gguf.header import read_header  # noqa: PLC0415
    from ..files.received_files import file_sha256  # noqa: PLC0415
    from .conversion import ConversionRequest, write_model  # noqa: PLC0415
    from .vocabulary_choice import DEFAULT_SIZE as VOCABULARY  # noqa: PLC0415

    try:
        tables = TokenizerTables.from_fields(read_header(model).fields, str(model))
    except FileError:  # of another kind of tokenizer
        return model
    if len(tables.tokens) <= VOCABULARY:
        return model
    request = ConversionRequest(base=str(model), type="same", vocabulary=str(VOCABULARY))
    return cached(
        f"models/{model.stem}-{file_sha256(model)[:8]}-{VOCABULARY}.gguf",
        lambda output: write_model(replace(request, output=output), run),
    )


def default_model(adapter: str | None = ADAPTER, *, progress: Progress = no_progress) -> Path:
    """Return the embedded model, SmolLM2-135M-Instruct, as a GGUF; it is converted on first use."""

    def make(output: Path) -> None:
        from ..convert.convert import convert  # noqa: PLC0415
        from ..convert.recipe import Recipe, Uniform  # noqa: PLC0415
        from .embedded import embedded  # noqa: PLC0415

        folder = adapter_folder(adapter) if adapter else None
        recipe = Recipe(embedded(), output, Uniform(_EMBEDDED_TYPE), folder, ids=(NAME, adapter or ""))
        convert(recipe, Run(stage=lambda name: progress))

    known = catalogue()
    # The hashes name the folder, so that the name of the file, which users read, is short.
    hashes = [known.embedded.sha256, *([known.adapters[adapter].sha256] if adapter else [])]
    folder = "-".join(one[:8] for one in hashes)
    return cached(f"embedded/{folder}/{_SHORT_NAMES.get(adapter, adapter) if adapter else NAME}.gguf", make)


def is_default_model(path: Path) -> bool:
    """Whether default_model() made a file."""
    with suppress(OutputError):  # there is no cache folder
        return path.parent.parent == cache_dir() / "embedded"
    return False


def is_short_sum(question: str) -> bool:
    """Whether a question is of the kind that the embedded model learned: one step with two numbers."""
    numbers = len(_NUMBER.findall(question))
    return numbers == 2 and len(question.split()) <= _WORDS_MAX and not _NOT_ONE_STEP.search(question)


def limits() -> str:
    """The limits of the embedded model, with the model that `thirteen models` recommends."""
    from ..runtime.machine import available_bytes  # noqa: PLC0415

    best = catalogue().recommended(available_bytes())
    return "the embedded model is for trying out" + (
        f"; a capable one: `thirteen chat {best.name}`" if best else ""
    )


def _content_key(folder: Path) -> str:
    """Changes when a file of the folder does; hashing all weights would take seconds at each start."""
    stats = [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in sorted(folder.iterdir())]
    return cache_key(folder.resolve(), stats)[:8]


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


def _announcement(base: str, is_remote: bool, parameters: int | None, size: str) -> str:
    nbytes = "" if parameters is None else f" of about {parameters * _BYTES_PER_PARAMETER / 1e9:.1f} GB"
    download = f"a download{nbytes}, unless the hub's cache has it, then " if is_remote else ""
    return f"{base}: {download}a conversion to {size}. Later it starts at once."


def _cached_model(path: Path) -> CachedModel:
    from ..files.gguf.header import read_header  # noqa: PLC0415

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
