"""The default model: SmolLM2-135M-Instruct from its Python package, converted into the cache on first use."""

from pathlib import Path

from ..convert.adapter.adapter import adapter_sha256
from ..convert.pipeline import convert
from ..convert.provenance import SourceIds
from ..files.cache_folder import cache_dir
from ..files.progress import Progress, no_progress
from ..models.catalogue import adapter_folder
from ..models.fetch import embedded
from .vocabulary_choice import choose_vocabulary

NAME = "smollm2-135m"
ADAPTER = "smollm2-135m-sums-13"
# The package has 4-bit weights. 8 bits preserve them almost exactly, and the adapter too.
TYPE = "Q8_0"
TRIMMED_TOKENS = 24_576  # of 49,152


def default_model(*, adapted: bool = True, progress: Progress = no_progress) -> Path:
    """Return the default model as a GGUF, with or without the shipped adapter; convert it on first use.

    Raises:
        ThirteenError: the package is missing or changed, or the cache cannot be written.
    """
    adapter = adapter_folder(ADAPTER) if adapted else None
    # The hash in the name keeps a new adapter from being served from an older file.
    name = f"{ADAPTER}-{adapter_sha256(adapter)[:8]}" if adapter else NAME
    output = cache_dir() / f"{name}-{TYPE}.gguf"
    if not output.exists():
        ids = SourceIds(NAME, ADAPTER)
        convert(embedded(), output, quantization=TYPE, adapter=adapter, ids=ids, progress=progress)
    return output


def default_trimmed_model(*, progress: Progress = no_progress) -> Path:
    """Return the default model with the shipped adapter and TRIMMED_TOKENS tokens; convert it on first use.

    Raises:
        ThirteenError: the package is missing or changed, or the cache cannot be written.
    """
    adapter = adapter_folder(ADAPTER)
    output = cache_dir() / f"{ADAPTER}-{adapter_sha256(adapter)[:8]}-{TRIMMED_TOKENS}-{TYPE}.gguf"
    if not output.exists():
        kept = choose_vocabulary(embedded(), TRIMMED_TOKENS, stage=lambda name: progress)
        ids = SourceIds(NAME, ADAPTER)
        convert(
            embedded(),
            output,
            quantization=TYPE,
            adapter=adapter,
            vocabulary=kept,
            ids=ids,
            progress=progress,
        )
    return output
