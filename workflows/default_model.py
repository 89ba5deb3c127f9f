"""The embedded model: SmolLM2-135M-Instruct, converted into the cache on first use."""

import re
from contextlib import suppress
from pathlib import Path

from ..errors import OutputError
from ..files.cache_folder import cache_dir
from ..files.progress import Progress, Run, no_progress
from ..models.catalogue import adapter_folder, catalogue

NAME = "smollm2-135m"
ADAPTER = "smollm2-135m-sums-840"
# The embedded model has 4-bit weights. 8 bits preserve them almost exactly, and the adapter too.
TYPE = "Q8_0"
_SHORT_NAMES = {ADAPTER: "smollm2-135m-sums"}
_WORDS_MAX = 40  # the longest question of lab/sums.py has half of them
_NUMBER = re.compile(r"\d+(?:[.,]\d+)*")
_NOT_ONE_STEP = re.compile(r"%|\bper ?cent|\bhalf\b|\btwice\b", re.IGNORECASE)


def limits() -> str:
    """What a user of the embedded model should know, with the model that `thirteen models` recommends."""
    from ..runtime.machine import available_bytes  # noqa: PLC0415 - few answers need it

    best = catalogue().recommended(available_bytes())
    return "the embedded model is for trying out" + (
        f"; a capable one: `thirteen chat {best.name}`" if best else ""
    )


def default_model(adapter: str | None = ADAPTER, *, progress: Progress = no_progress) -> Path:
    """Return the embedded model as a GGUF; convert it on first use.

    Args:
        adapter: name of the shipped adapter to merge, or None.
        progress: called during a conversion.

    Raises:
        ThirteenError: the embedded model cannot be downloaded, or the cache cannot be written.
    """
    known = catalogue()
    # The hashes keep a new base or adapter from being served from an older file. They name the folder, so
    # that the name of the file, which users read, is short.
    hashes = [known.embedded.sha256, *([known.adapters[adapter].sha256] if adapter else [])]
    folder = _folder() / "-".join(one[:8] for one in hashes)
    output = folder / f"{_SHORT_NAMES.get(adapter, adapter) if adapter else NAME}.gguf"
    if not output.exists():
        from ..convert.convert import convert  # noqa: PLC0415 - numpy and more, which an answer does not need
        from ..convert.quantization import Uniform  # noqa: PLC0415
        from ..convert.recipe import Recipe  # noqa: PLC0415
        from ..convert.source_ids import SourceIds  # noqa: PLC0415
        from ..models.embedded import embedded  # noqa: PLC0415

        folder.mkdir(parents=True, exist_ok=True)
        found = adapter_folder(adapter) if adapter else None
        recipe = Recipe(embedded(), output, Uniform(TYPE), found, ids=SourceIds(NAME, adapter or ""))
        convert(recipe, Run(stage=lambda name: progress))
    return output


def is_default_model(path: Path) -> bool:
    """Whether default_model() made a file."""
    with suppress(OutputError):  # there is no cache folder
        return path.parent.parent == _folder()
    return False


def is_short_sum(question: str) -> bool:
    """Whether a question is of the kind that the embedded model learned: one step with two numbers."""
    numbers = len(_NUMBER.findall(question))
    return numbers == 2 and len(question.split()) <= _WORDS_MAX and not _NOT_ONE_STEP.search(question)


def _folder() -> Path:
    return cache_dir() / "embedded"
