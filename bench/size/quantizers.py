"""Quantizers of others that write GGUF, and which of their formats are nearest to a size."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from math import log
from pathlib import Path
from types import MappingProxyType
from typing import Literal, get_args

from ...errors import RequestError, install_hint
from ..peers.llama_quantize import StockFormat
from .auto_round import SCHEMES
from .size import StockSize

QuantizerName = Literal["autoround", "autoround-light", "autoround-200", "gptq-gguf"]

# llama.cpp's own types and mixes, quantized with the importance file as its importance matrix.
IMATRIX = "imatrix"
QUANTIZERS: tuple[QuantizerName, ...] = get_args(QuantizerName)
# AutoRound's tuning steps per layer: it advises none for GGUF; 50 are its recipe "light", 200 its default.
AUTO_ROUND_ITERATIONS: Mapping[QuantizerName, int] = MappingProxyType(
    {"autoround": 0, "autoround-light": 50, "autoround-200": 200}
)
_AUTO_ROUND_PACKAGES = ("auto_round", "sentencepiece", "torch", "transformers")
_BELOW = 2  # of llama.cpp's files of one kind that are no larger than a planned one, how many are made


@dataclass(frozen=True, slots=True)
class Quantizer:
    """A quantizer to compare with.

    Attributes:
        name: its name.
        file: a file that was made with it; None to make files here.
    """

    name: QuantizerName
    file: Path | None = None

    @property
    def makes_files(self) -> bool:
        """Whether its files are made here, if it is installed."""
        return self.file is None and self.name in AUTO_ROUND_ITERATIONS

    @property
    def missing(self) -> str | None:
        """Why it can make no file here; None if it can, or need not."""
        if self.file is not None:
            return None
        if self.name == "gptq-gguf":
            return (
                "gptq-gguf-toolkit (github.com/IST-DASLab/gptq-gguf-toolkit) is in no package index, so pip "
                "cannot install it; to measure a file that it made, give gptq-gguf=FILE.gguf"
            )
        absent = [name.replace("_", "-") for name in _AUTO_ROUND_PACKAGES if find_spec(name) is None]
        return f"{' and '.join(absent)} not installed: {install_hint('curve')}" if absent else None


def parse_quantizers(option: str, text: str) -> tuple[bool, tuple[Quantizer, ...]]:
    """Parse names of quantizers separated by commas, each perhaps with a file, as in `gptq-gguf=a.gguf`.

    Args:
        option: name of the option, for errors.
        text: its value; `none` for no quantizer.

    Returns:
        Whether llama.cpp's own quantizer is among them, and the others.

    Raises:
        RequestError: a name is unknown, or a file is missing.
    """
    words = [] if text.strip() == "none" else [word.strip() for word in text.split(",")]
    others = (_parse(option, word) for word in words if word != IMATRIX)
    return IMATRIX in words, tuple(dict.fromkeys(others))


def _parse(option: str, word: str) -> Quantizer:
    name, equals, path = word.partition("=")
    known = next((one for one in QUANTIZERS if one == name), None)
    if known is None:
        names = ", ".join((IMATRIX, *QUANTIZERS))
        raise RequestError(f"{option} {name!r}: must be none, or some of {names}")
    if equals and not Path(path).is_file():
        raise RequestError(f"{option} {word}: there is no file {path!r}")
    return Quantizer(known, Path(path) if equals else None)


def formats_around(sizes: Iterable[int], stock: Sequence[StockSize]) -> list[StockFormat]:
    """Choose llama.cpp's formats whose files are around the given sizes.

    For each size and kind they are the two largest that fit, as the larger is not always the better one, and
    the smallest that does not. Formats of equal size count as one.

    Args:
        sizes: sizes of planned files in bytes.
        stock: sizes of all formats.
    """
    kinds = {one.kind: sorted({two.file_bytes for two in stock if two.kind == one.kind}) for one in stock}
    chosen = {
        (kind, nbytes)
        for size in sizes
        for kind, all_bytes in kinds.items()
        for nbytes in (
            *[one for one in all_bytes if one <= size][-_BELOW:],
            *[one for one in all_bytes if one > size][:1],
        )
    }
    return [StockFormat(one.kind, one.name) for one in stock if (one.kind, one.file_bytes) in chosen]


def schemes_around(sizes: Iterable[int], stock: Sequence[StockSize]) -> list[str]:
    """Choose AutoRound's scheme nearest to each size, by the size of llama.cpp's mix of the same types.

    Of schemes of equal size it is the one with the larger types: both fall back to others for some rows.
    """
    mixes = {one.name: one.file_bytes for one in stock if one.kind == "mix"}

    def nearest(size: int) -> str:
        return min(reversed(SCHEMES), key=lambda scheme: abs(log(mixes[SCHEMES[scheme]] / size)))

    return list(dict.fromkeys(map(nearest, sizes)))
