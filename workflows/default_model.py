"""The default model: SmolLM2-135M-Instruct from its Python package, converted on first use into the cache."""

from pathlib import Path

from ..convert.adapter.adapter import adapter_sha256
from ..convert.pipeline import convert
from ..files.cache_folder import cache_dir
from ..files.progress import Progress, no_progress
from ..models.catalogue import adapter_folder
from ..models.fetch import embedded

NAME = "smollm2-135m"
ADAPTER = "smollm2-135m-sums-13"
# The package holds 4-bit weights. At 8 bits their rounding is kept all but unchanged, and so is the adapter.
TYPE = "Q8_0"


def default_model(*, adapted: bool = True, progress: Progress = no_progress) -> Path:
    """The default model as a GGUF, plain or with the shipped adapter merged; converted if not there yet.

    Raises:
        ThirteenError: the package is missing or changed, or the cache cannot be written.
    """
    name = ADAPTER if adapted else NAME
    adapter = adapter_folder(ADAPTER) if adapted else None
    # The name tells what it was made of, so that a new adapter is not served from an old file.
    stamp = f"-{adapter_sha256(adapter)[:8]}" if adapter else ""
    output = cache_dir() / f"{name}{stamp}-{TYPE}.gguf"
    if not output.exists():
        convert(
            embedded(),
            output,
            quantization=TYPE,
            adapter=adapter,
            base_id=NAME,
            adapter_id=ADAPTER,
            progress=progress,
        )
    return output
