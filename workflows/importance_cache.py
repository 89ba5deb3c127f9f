"""Importance files of a base with its adapter, measured over calibration text and cached."""

from dataclasses import replace
from hashlib import sha256
from pathlib import Path

from ..convert.adapter.adapter import adapter_sha256
from ..convert.calibration.activation_stats import collect_activation_stats
from ..convert.merged_model import MergedModel
from ..convert.quantize.importance import write_importance
from ..convert.source.checkpoint import Checkpoint, open_checkpoint
from ..convert.tokenizer_file import write_tokenizer_file
from ..errors import RequestError
from ..files.cache_folder import cache_dir, cache_key
from ..files.hashing import file_sha256
from ..files.progress import Stage, no_progress
from ..files.temporary_folder import temporary_folder
from ..models.texts import calibration_texts
from ..runtime.corpus.passages import chunk_passages, read_passages
from ..runtime.llama.gguf_checks import read_model_header
from ..runtime.llama.model import Model
from ..runtime.machine.threads import default_threads

# BF16 would round a small adapter away; F16 has three bits more of mantissa.
PRECISION = "F16"
_METHOD = "6"  # incremented when the measurement changes, so that older files are not reused
_CHUNK_SIZE = 512  # tokens
# Most chunks by thoroughness, spread over the text. KL of layers in IQ4_NL: see docs/figures/quality.md.
CHUNKS = {"quick": 6, "normal": 12, "thorough": 36}
NORMAL = "normal"
THOROUGH = "thorough"  # with which a conversion also searches the scales of blocks


def cached_importance(  # noqa: PLR0913 - options of a measurement, each with its default
    base: Path,
    adapter: Path | None,
    *,
    calibration: Path | None = None,
    thoroughness: str = NORMAL,
    threads: int | None = None,
    stage: Stage = lambda name: no_progress,
) -> Path:
    """Return the importance file of a base with its adapter; measure it if the cache does not have it.

    Args:
        base: a folder of safetensors, or a GGUF.
        adapter: a PEFT folder, merged into the base before the measurement.
        calibration: passages as JSON lines; by default the built-in ones.
        thoroughness: how much of the text is read, a key of CHUNKS.
        threads: number of threads that compute.
        stage: makes the progress callback of each stage.

    Raises:
        ThirteenError: an input is invalid, or the cache cannot be written.
    """
    check_thoroughness(thoroughness)
    texts = calibration or calibration_texts()
    read_passages(texts)  # reports an invalid file before the weights are hashed
    adapter_hash = adapter_sha256(adapter) if adapter else ""
    checkpoint = open_checkpoint(base)
    settings = sha256(repr((checkpoint.architecture, checkpoint.tokenizer)).encode()).hexdigest()
    key = cache_key(
        _METHOD, checkpoint.sha256(), settings, adapter_hash, file_sha256(texts), CHUNKS[thoroughness]
    )
    path = cache_dir() / f"importance-{key}.gguf"
    if not path.exists():
        measure_importance(
            base,
            adapter,
            path,
            calibration=calibration,
            thoroughness=thoroughness,
            threads=threads,
            stage=stage,
        )
    return path


def check_thoroughness(thoroughness: str) -> None:
    """Raise RequestError if this is no key of CHUNKS."""
    if thoroughness not in CHUNKS:
        raise RequestError(f"--effort {thoroughness!r}: must be one of {', '.join(CHUNKS)}")


def measure_importance(  # noqa: PLR0913 - options of a measurement, each with its default
    base: Path,
    adapter: Path | None,
    output: Path,
    *,
    calibration: Path | None = None,
    thoroughness: str = NORMAL,
    threads: int | None = None,
    stage: Stage = lambda name: no_progress,
) -> str:
    """Measure the importance of a base with its adapter and write it to `output`.

    See cached_importance() for the other arguments.

    Returns:
        The file's SHA-256.
    """
    texts = calibration or calibration_texts()
    model = MergedModel(open_checkpoint(base), adapter, "")
    chunks = calibration_chunks(model.base, texts, thoroughness)
    threads = default_threads() if threads is None else threads
    stats = collect_activation_stats(model, chunks, threads=threads, progress=stage("importance"))
    return write_importance(output, replace(stats, datasets=[texts.name]))


def calibration_chunks(base: Checkpoint, texts: Path, thoroughness: str = NORMAL) -> list[tuple[int, ...]]:
    """The chunks of a calibration text that the importance is measured on, by llama.cpp's tokenizer.

    Args:
        base: the base, whose tokenizer applies.
        texts: passages as JSON lines.
        thoroughness: how many, a key of CHUNKS.

    Raises:
        RequestError: the file cannot be read, or holds no text; or the thoroughness is unknown.
    """
    check_thoroughness(thoroughness)
    passages = read_passages(texts)
    with temporary_folder("importance") as folder:
        write_tokenizer_file(base, folder / "tokenizer.gguf")
        with Model(
            read_model_header(folder / "tokenizer.gguf", weights=False), vocabulary_only=True
        ) as model:
            chunks = chunk_passages(model, passages, min(_CHUNK_SIZE, model.context_trained))
    count = min(CHUNKS[thoroughness], len(chunks))
    return [chunks[index * len(chunks) // count] for index in range(count)]  # spread over the text
