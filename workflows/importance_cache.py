"""Importance files of a base with its adapter, measured over calibration text and cached."""

import hashlib
from pathlib import Path

from ..convert.adapter.adapter import adapter_sha256
from ..convert.pipeline import convert
from ..convert.quantize.covariance import Covariance, empty_low_rank
from ..convert.quantize.importance import ImportanceStats, write_importance
from ..convert.source.checkpoint import open_checkpoint
from ..files.cache_folder import cache_dir
from ..files.gguf.header import read_header
from ..files.hashing import file_sha256
from ..files.progress import Stage, no_progress
from ..files.temporary_folder import temporary_folder
from ..models.texts import calibration_texts
from ..runtime.calibration.activation_stats import ActivationStats, collect_activation_stats
from ..runtime.calibration.corpus import read_passages
from ..runtime.calibration.sensitivity import Sensitivities, measure_sensitivities

# BF16 would round a small adapter away; F16 has three bits more of mantissa.
PRECISION = "F16"
_METHOD = "3"  # incremented when the measurement changes, so that older files are not reused
_CHUNK_SIZE = 512  # tokens


def cached_importance(
    base: Path,
    adapter: Path | None,
    *,
    calibration: Path | None = None,
    threads: int | None = None,
    stage: Stage = lambda name: no_progress,
) -> Path:
    """Return the importance file of a base with its adapter; measure it if the cache does not have it.

    Args:
        base: a folder of safetensors, or a GGUF.
        adapter: a PEFT folder, merged into the base before the measurement.
        calibration: passages as JSON lines; by default the built-in ones.
        threads: number of threads that compute.
        stage: makes the progress callback of each stage.

    Raises:
        ThirteenError: an input is invalid, or the cache cannot be written.
    """
    texts = calibration or calibration_texts()
    read_passages(texts)  # reports an invalid file before the weights are hashed
    parts = [
        _METHOD,
        open_checkpoint(base).sha256(),
        adapter_sha256(adapter) if adapter else "",
        file_sha256(texts),
    ]
    key = hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]
    path = cache_dir() / f"importance-{key}.gguf"
    if not path.exists():
        measure_importance(base, adapter, path, calibration=calibration, threads=threads, stage=stage)
    return path


def measure_importance(  # noqa: PLR0913 - options of a measurement, each with its default
    base: Path,
    adapter: Path | None,
    output: Path,
    *,
    calibration: Path | None = None,
    threads: int | None = None,
    stage: Stage = lambda name: no_progress,
) -> str:
    """Measure the importance of a base with its adapter and write it to `output`.

    See cached_importance() for the other arguments.

    Returns:
        The file's SHA-256.
    """
    texts = calibration or calibration_texts()
    passages = read_passages(texts)
    with temporary_folder("importance") as folder:
        model = folder / "model.gguf"
        progress = stage("high precision")
        convert(base, model, quantization=PRECISION, adapter=adapter, threads=threads, progress=progress)
        metadata = read_header(model).metadata
        context = metadata[f"{metadata['general.architecture']}.context_length"]
        activations = collect_activation_stats(
            model,
            passages,
            chunk_size=min(_CHUNK_SIZE, context),
            threads=threads,
            progress=stage("activations"),
        )
        sensitivities = measure_sensitivities(model, passages, threads=threads, progress=stage("sensitivity"))
    return write_importance(output, _importance_stats(activations, sensitivities, texts.name))


def _importance_stats(
    activations: ActivationStats, sensitivities: Sensitivities, dataset: str
) -> ImportanceStats:
    return ImportanceStats(
        sums=activations.sums,
        counts=activations.counts,
        chunk_size=activations.chunk_size,
        chunk_count=activations.chunk_count,
        datasets=[dataset],
        sensitivity=sensitivities.matmul,
        lookup_sensitivity=sensitivities.lookup,
        lookup_counts=activations.token_counts,
        covariances={
            name: Covariance(blocks, activations.sketches.get(name, empty_low_rank(blocks)))
            for name, blocks in activations.covariances.items()
        },
    )
