"""The default model: SmolLM2-135M-Instruct, converted into the cache on first use."""

from pathlib import Path

from ..convert.adapter.adapter import adapter_sha256
from ..convert.pipeline import convert
from ..convert.provenance import SourceIds
from ..files.cache_folder import cache_dir
from ..files.progress import Progress, no_progress
from ..models.catalogue import adapter_folder, catalogue
from ..models.embedded import embedded

NAME = "smollm2-135m"
ADAPTER = "smollm2-135m-sums-13"
# The embedded model has 4-bit weights. 8 bits preserve them almost exactly, and the adapter too.
TYPE = "Q8_0"


def default_model(*, adapted: bool = True, progress: Progress = no_progress) -> Path:
    """Return the default model as a GGUF; convert it on first use.

    Args:
        adapted: with the shipped adapter.
        progress: called during a conversion.

    Raises:
        ThirteenError: the embedded model cannot be downloaded, or the cache cannot be written.
    """
    adapter = adapter_folder(ADAPTER) if adapted else None
    # The hashes in the name keep a new base or adapter from being served from an older file.
    name = f"{ADAPTER}-{adapter_sha256(adapter)[:8]}" if adapter else NAME
    output = cache_dir() / f"{name}-{catalogue().embedded.sha256[:8]}-{TYPE}.gguf"
    if not output.exists():
        convert(
            embedded(),
            output,
            quantization=TYPE,
            adapter=adapter,
            ids=SourceIds(NAME, ADAPTER),
            progress=progress,
        )
    return output
