"""Importance files of a base with its adapter, measured over calibration text and cached."""

from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from ..convert.adapter.adapter import adapter_sha256
from ..convert.calibration.activation_stats import collect_activation_stats
from ..convert.merged_model import MergedModel
from ..convert.provenance import write_tokenizer_file
from ..convert.quantize.importance import write_importance
from ..convert.source.checkpoint import Checkpoint
from ..files.cache_folder import cache_key, cached
from ..files.gguf.header import read_header
from ..files.progress import QUIET, Run
from ..files.received_files import file_sha256
from ..files.temporary_folder import temporary_folder
from ..runtime.llama.model import Model
from ..runtime.machine import default_threads
from .passages import CALIBRATION, chunk_passages, read_passages

_METHOD = "6"  # incremented when the measurement changes, so that older files are not reused
_CHUNK_SIZE = 512  # tokens
# Most chunks by thoroughness, spread over the text. KL of layers in IQ4_NL: see docs/figures.md.
CHUNKS = {"quick": 6, "normal": 12, "thorough": 36}
NORMAL = "normal"
THOROUGH = "thorough"  # with which a conversion also searches the scales of blocks


@dataclass(frozen=True)
class Calibration:
    """The passages that measure the importance, as JSON lines, and how many of them, a key of CHUNKS."""

    texts: Path = CALIBRATION
    thoroughness: str = NORMAL


def cached_importance(
    base: Checkpoint, adapter: Path | None, calibration: Calibration, run: Run = QUIET
) -> Path:
    """The importance file of a base with an adapter; measured if the cache does not have it.

    Args:
        base: the base.
        adapter: a PEFT folder, merged into the base before the measurement.
        calibration: what it is measured on.
        run: how it runs.
    """
    texts, chunks = calibration.texts, CHUNKS[calibration.thoroughness]
    read_passages(texts)  # reports an invalid file before the weights are hashed
    adapter_hash = adapter_sha256(adapter) if adapter else ""
    settings = sha256(repr((base.architecture, base.tokenizer)).encode()).hexdigest()
    key = cache_key(_METHOD, base.sha256(), settings, adapter_hash, file_sha256(texts), chunks)
    return cached(
        f"importance-{key}.gguf", lambda path: measure_importance(base, adapter, path, calibration, run)
    )


def measure_importance(
    base: Checkpoint, adapter: Path | None, output: Path, calibration: Calibration, run: Run = QUIET
) -> str:
    """Measure the importance as in cached_importance(), and write it; returns the file's SHA-256."""
    model = MergedModel(base, adapter)
    chunks = _calibration_chunks(model.base, calibration)
    threads = default_threads() if run.threads is None else run.threads
    stats = collect_activation_stats(model, chunks, threads=threads, progress=run.stage("importance"))
    return write_importance(output, stats, [calibration.texts.name])


def _calibration_chunks(base: Checkpoint, calibration: Calibration) -> list[tuple[int, ...]]:
    """Chunks of a text by the tokenizer of a base, spread over the text."""
    passages = read_passages(calibration.texts)
    with temporary_folder("importance") as folder:
        write_tokenizer_file(base, folder / "tokenizer.gguf")
        header = read_header(folder / "tokenizer.gguf")
        with Model(header, vocabulary_only=True) as model:
            chunks = chunk_passages(model, passages, min(_CHUNK_SIZE, model.context_trained))
    count = min(CHUNKS[calibration.thoroughness], len(chunks))
    return [chunks[index * len(chunks) // count] for index in range(count)]
