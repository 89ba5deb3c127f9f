"""Models by name: bases of the hub that were converted into the cache on first use."""

import json
import os
import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from math import isfinite
from pathlib import Path

from ..convert.pipeline import ConversionReport
from ..errors import ModelFileError, RequestError
from ..files.atomic_write import atomic_write
from ..files.cache_folder import cache_dir
from ..files.gguf.header import read_header
from ..files.json_file import read_json
from ..files.output import make_folder
from ..files.progress import Stage, no_progress
from ..models.catalogue import catalogue
from .conversion import ConversionRequest, run_conversion

DEFAULT_SIZE = "4.5bpw"  # of a base outside the catalogue
_BYTES_PER_PARAMETER = 2  # of published weights
_NOT_IN_NAMES = re.compile(r"[^\w.@-]")
_HUB_ID = re.compile(r"[^/\\~.][^/\\]*/[^/\\]+")


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
        predicted_divergence: KL divergence from the unquantized model in nats, as it was predicted when the
            file was planned; None if that is not known.
        used_at: when it was last opened by its name, in Unix seconds.
    """

    name: str
    base: str
    path: Path
    file_bytes: int
    bits_per_weight: float
    tokens: int
    predicted_divergence: float | None
    used_at: float


def is_model_name(source: str) -> bool:
    """Whether this is a catalogue name or a hub id, and no path."""
    # Path.exists() raises for a name that is too long for the file system.
    if os.path.exists(source) or source.endswith(".gguf"):  # noqa: PTH110
        return False
    return source.partition("@")[0] in catalogue().bases or bool(_HUB_ID.fullmatch(source))


def named_model(
    name: str,
    *,
    threads: int | None = None,
    announce: Callable[[str], None] = lambda message: None,
    stage: Stage = lambda name: no_progress,
) -> Path:
    """Return the GGUF of a base; download, plan and convert it on first use.

    Args:
        name: catalogue name or hub id, perhaps with `@revision`.
        threads: number of threads that compute.
        announce: called with a line on what a first use will download and write.
        stage: makes the progress callback of each stage.

    Raises:
        ThirteenError: the name is unknown, the download fails, or the size is impossible.
    """
    entry = catalogue().bases.get(name.partition("@")[0])
    size = entry.size if entry else DEFAULT_SIZE
    output = _folder() / f"{_NOT_IN_NAMES.sub('--', name)}-{size}.gguf"
    if not output.exists():
        announce(_announcement(name, entry.parameters if entry else None, size))
        _record_path(output).unlink(missing_ok=True)
        request = ConversionRequest(base=name, output=output, size=size, fidelity=False, threads=threads)
        report = run_conversion(request, stage).conversion
        _write_record(output, report)
    with suppress(OSError):  # in a cache that cannot be written, the time of use is not kept
        _record_path(output).touch()  # with the times of the model itself, its trust would lapse
    return output


def cached_models() -> list[CachedModel]:
    """The converted models in the cache, the most recently used first; damaged files are left out."""
    found = []
    for path in _folder().glob("*.gguf"):
        with suppress(ModelFileError):
            found.append(_cached_model(path))
    return sorted(found, key=lambda model: model.used_at, reverse=True)


def cached_model(name: str) -> CachedModel:
    """Find a model by its name in the cache.

    Raises:
        RequestError: there is none.
    """
    models = {model.name: model for model in cached_models()}
    if name not in models:
        raise RequestError(f"{name!r} is not in the cache, which has {', '.join(models) or 'no models'}")
    return models[name]


def remove_model(name: str) -> CachedModel:
    """Delete a model from the cache; what was downloaded for it stays in the hub's cache.

    Raises:
        RequestError: there is none of this name.
    """
    model = cached_model(name)
    model.path.unlink(missing_ok=True)
    _record_path(model.path).unlink(missing_ok=True)
    return model


def _folder() -> Path:
    folder = cache_dir() / "models"
    make_folder(folder)
    return folder


def _record_path(model: Path) -> Path:
    """The file beside a model with what was predicted of it; its time is that of the last use by name."""
    return model.with_name(f"{model.name}.json")


def _used_at(model: Path) -> float:
    """When a model was last opened by its name; earlier versions set the time of the model itself."""
    files = (model, _record_path(model))
    return max(file.stat().st_mtime for file in files if file.exists())


def _write_record(model: Path, report: ConversionReport) -> None:
    divergence = report.prediction.divergence if report.prediction else None
    with atomic_write(_record_path(model)) as file:
        file.write(json.dumps({"predicted_divergence": divergence}).encode())


def _predicted_divergence(model: Path) -> float | None:
    """What the record of a model says; None for a model without one."""
    try:
        value = read_json(_record_path(model), ModelFileError).get("predicted_divergence")
    except ModelFileError:
        return None
    return value if isinstance(value, float) and isfinite(value) else None


def _announcement(name: str, parameters: int | None, size: str) -> str:
    download = "" if parameters is None else f" of about {parameters * _BYTES_PER_PARAMETER / 1e9:.1f} GB"
    return (
        f"{name}: a download{download}, unless the hub's cache has it, then a conversion to {size}. Later it "
        "starts at once."
    )


def _cached_model(path: Path) -> CachedModel:
    header = read_header(path)
    base = header.metadata.get("thirteen.base.id")
    tokens = header.metadata.get("tokenizer.ggml.tokens")
    if not isinstance(base, str) or not isinstance(tokens, Sequence):
        raise ModelFileError(f"{path}: was not converted here")
    return CachedModel(
        name=path.stem,
        base=base,
        path=path,
        file_bytes=header.file_bytes,
        bits_per_weight=header.bits_per_weight,
        tokens=len(tokens),
        predicted_divergence=_predicted_divergence(path),
        used_at=_used_at(path),
    )
