"""What to convert, and how, as a user says it."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ..convert.provenance import SourceIds, source_ids
from ..convert.quantize.costs import parse_workload
from ..convert.quantize.file_size import parse_file_size
from ..convert.quantize.size_planner import PREFERENCES
from ..errors import RequestError
from .importance_cache import DEFAULT_EFFORT, SEARCHING_EFFORT, check_effort


@dataclass(frozen=True, kw_only=True)
class ConversionRequest:
    """What to convert, and how.

    Attributes:
        base: catalogue name, hub id, folder of safetensors, or GGUF.
        output: the GGUF to write; None to plan one.
        adapter: PEFT folder, hub id, catalogue name, or short code.
        type: ggml type, or `same` for those of the base; by default Q4_K.
        size: maximum file size instead of a type: 600MB, 572MiB or 3.9bpw.
        vocabulary: tokens to keep: their number, the file of a list, or `auto` for as many as lose the least.
        vocabulary_texts: texts of one's own to choose these tokens on.
        importance: importance file; by default it is measured once where it is needed, and cached.
        calibration: texts to measure it on.
        effort: how much of them is read: quick, normal or thorough, which also searches the scales of blocks.
        target: processors to plan for; by default this one, whose costs are measured on first use.
        prefer: `quality` or `speed`; by default between the two.
        costs: file of costs that `bench types` measured.
        workload: what to plan for, as `prompt=200,answer=100`.
        fidelity: whether to compare the file with F16; by default with an adapter only.
        revision: branch, tag or commit of the base on the hub.
        threads: number of threads that compute.
    """

    base: str
    output: Path | None = None
    adapter: str | None = None
    type: str | None = None
    size: str | None = None
    vocabulary: str | None = None
    vocabulary_texts: Path | None = None
    importance: Path | None = None
    calibration: Path | None = None
    effort: str | None = None
    target: str | None = None
    prefer: str | None = None
    costs: Path | None = None
    workload: str | None = None
    fidelity: bool | None = None
    revision: str | None = None
    threads: int | None = None

    def check(self) -> None:
        """Raise ThirteenError if fields exclude each other, have no effect, or are malformed."""
        for one, other in (("type", "size"), ("costs", "target")):
            if getattr(self, one) and getattr(self, other):
                raise RequestError(f"{self._text(one)} and {self._text(other)} exclude each other")
        if self.size is None:
            self._refuse("requires --size", "target", "prefer", "costs", "workload")
            if self.vocabulary == "auto":
                raise RequestError("--vocabulary auto requires --size")
        else:
            parse_file_size(self.size)
        if self.vocabulary is None and self.vocabulary_texts:
            raise RequestError("--vocabulary-texts requires --vocabulary with a number of tokens")
        if self.importance:
            self._refuse("--importance is given, so none is measured", "calibration")
        if self.prefer not in PREFERENCES:
            raise RequestError(f"{self._text('prefer')}: must be quality or speed")
        if self.workload:
            parse_workload(self.workload)
        check_effort(self.effort or DEFAULT_EFFORT)

    def _text(self, field: str) -> str:
        return f"--{field} {getattr(self, field)}"

    def _refuse(self, reason: str, *names: str) -> None:
        for name in names:
            if getattr(self, name) is not None:
                raise RequestError(f"--{name}: {reason}")

    @property
    def search_scales(self) -> bool:
        """Whether the scales of blocks are searched."""
        return self.effort == SEARCHING_EFFORT

    @property
    def ids(self) -> SourceIds:
        """Names of the base and the adapter in the provenance."""
        return source_ids(self.base, self.adapter)

    @property
    def files(self) -> Iterator[Path]:
        """The files and folders that are read, as far as they are here."""
        names = ("base", "adapter", "vocabulary")
        paths = (self.vocabulary_texts, self.importance, self.calibration, self.costs)
        yield from (Path(name) for name in (getattr(self, one) for one in names) if name and _exists(name))
        yield from filter(None, paths)


def _exists(path: str) -> bool:
    return os.path.exists(path)  # noqa: PTH110 - Path.exists() raises for a code that is too long
