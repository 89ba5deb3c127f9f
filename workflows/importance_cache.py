"""Importance for a base with its adapter: the model is run over calibration text, and the result cached."""

import hashlib
import tempfile
from pathlib import Path

from ..convert.adapter.adapter import adapter_sha256
from ..convert.pipeline import convert
from ..convert.quantize.covariance import Covariance, empty_low_rank
from ..convert.quantize.importance import ImportanceStats, write_importance
from ..convert.source.checkpoint import open_checkpoint
from ..files.cache_folder import cache_dir
from ..files.gguf_header import read_header
from ..files.hashing import file_sha256
from ..files.progress import Stage, no_progress
from ..models.texts import calibration_texts as built_in
from ..runtime.calibration.activation_stats import collect_activation_stats
from ..runtime.calibration.corpus import read_passages
from ..runtime.calibration.sensitivity import measure_sensitivities

# In bfloat16 a small adapter would be lost in the rounding; float16 has three bits more.
PRECISION = "F16"
_METHOD = "3"  # changes when what is measured does, so that no old file is taken for a new one
_CHUNK = 512


def cached_importance(
    base: Path,
    adapter: Path | None,
    *,
    calibration: Path | None = None,
    threads: int | None = None,
    stage: Stage = lambda name: no_progress,
) -> Path:
    """The importance of a base with its adapter, measured unless it lies in the cache.

    Args:
        base: see convert.pipeline.convert().
        adapter: likewise.
        calibration: passages as JSON lines; the built-in ones unless given.
        threads: that compute.
        stage: gives what to call with the progress of each stage.

    Raises:
        ThirteenError: one of its kinds, for whatever is wrong with an input.
    """
    texts = calibration or built_in()
    read_passages(texts)  # a bad file is known before the hashing
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


def measure_importance(  # noqa: PLR0913 - what a measurement can be told
    base: Path,
    adapter: Path | None,
    output: Path,
    *,
    calibration: Path | None = None,
    threads: int | None = None,
    stage: Stage = lambda name: no_progress,
) -> str:
    """Measure the importance of a base with its adapter and write it; see cached_importance().

    Returns:
        The file's SHA-256.
    """
    texts = calibration or built_in()
    passages = read_passages(texts)
    with tempfile.TemporaryDirectory(prefix="importance-", dir=cache_dir()) as folder:
        model = Path(folder) / "model.gguf"
        convert(
            base, model, quantization=PRECISION, adapter=adapter, threads=threads, progress=stage("high precision")
        )
        metadata = read_header(model).metadata
        trained = metadata[f"{metadata['general.architecture']}.context_length"]
        statistics = collect_activation_stats(
            model, passages, chunk_size=min(_CHUNK, trained), threads=threads, progress=stage("activations")
        )
        sensitive = measure_sensitivities(model, passages, threads=threads, progress=stage("sensitivity"))
    stats = ImportanceStats(
        sums=statistics.sums,
        counts=statistics.counts,
        chunk_size=statistics.chunk_size,
        chunk_count=statistics.chunk_count,
        datasets=[texts.name],
        sensitivity=sensitive.matmul,
        lookup_sensitivity=sensitive.lookup,
        lookup_counts=statistics.token_counts,
        covariances={
            name: Covariance(blocks, statistics.sketches.get(name, empty_low_rank(blocks)))
            for name, blocks in statistics.covariances.items()
        },
    )
    return write_importance(output, stats)
