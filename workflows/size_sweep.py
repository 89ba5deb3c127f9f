"""Sweep over file sizes: planned files and llama.cpp's own, made and measured one after the other."""

import json
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from math import prod
from pathlib import Path
from typing import NamedTuple

from ..bench.peers.llama_quantize import MIXES, UNIFORM, StockFormat, quantize_stock
from ..bench.size import kl_curve, plot
from ..bench.size.kl_curve import CurveEntry, CurveReport
from ..bench.size.size_matched import FileKind
from ..convert.pipeline import ConversionReport, convert
from ..convert.provenance import DEFAULT_IDS, AdapterSource, SourceIds, WeightsSource
from ..convert.quantize.file_size import FileSize
from ..convert.quantize.size_planner import SizeTarget
from ..convert.source.checkpoint import open_checkpoint
from ..convert.vocabulary.vocabulary_list import VocabularyList
from ..files.atomic_write import atomic_write
from ..files.output import check_folder, make_folder
from ..files.progress import Progress, Stage, no_progress
from ..files.temporary_folder import temporary_folder
from ..models.texts import held_out_texts
from ..runtime.calibration.corpus import read_passages
from .importance_cache import cached_importance

STOCK = (*UNIFORM, *MIXES)
# The reference of a larger model is F16, which halves its size and time.
_F32_WEIGHTS_MAX = 1_000_000_000


@dataclass(frozen=True)
class SweepInputs:
    """What all files of a sweep are made from.

    Attributes:
        base: a folder of safetensors, or a GGUF.
        adapter: a PEFT folder, merged into all files.
        importance: importance file; by default measured and cached.
        calibration: passages for that measurement; by default the built-in ones.
        ids: names of base and adapter in the provenance.
        threads: number of threads that quantize and compute.
        vocabulary: tokens that a second planned file of each size keeps; None for no such files.
    """

    base: Path
    adapter: Path | None = None
    importance: Path | None = None
    calibration: Path | None = None
    ids: SourceIds = DEFAULT_IDS
    threads: int | None = None
    vocabulary: VocabularyList | None = None

    @cached_property
    def weights(self) -> int:
        """Number of the model's weights."""
        return sum(prod(spec.shape) for spec in open_checkpoint(self.base).specs.values())

    @property
    def slug(self) -> str:
        """Start of the file names."""
        return _slug("+".join(filter(None, (self.ids.base or self.base.name, self.ids.adapter))))

    def convert(
        self,
        output: Path,
        quantization: str | SizeTarget,
        progress: Progress,
        vocabulary: VocabularyList | None = None,
    ) -> ConversionReport:
        return convert(
            self.base,
            output,
            quantization=quantization,
            importance=self.importance,
            adapter=self.adapter,
            vocabulary=vocabulary,
            ids=self.ids,
            threads=self.threads,
            progress=progress,
        )


@dataclass(frozen=True)
class SizeSweepReport:
    """Result of a sweep; dataclasses.asdict makes it JSON.

    Attributes:
        base: origin of the base.
        adapter: origin of the adapter that all files have merged; None without one.
        importance: origin of the importance file of all files.
        target: kind of processor that the files were planned for.
        prefer: preference of the plans, see SizeTarget.
        warnings: messages for the user.
        curve: measurements of the files.
    """

    base: WeightsSource
    adapter: AdapterSource | None
    importance: WeightsSource
    target: str
    prefer: str
    warnings: list[str]
    curve: CurveReport

    @property
    def model(self) -> str:
        """Names of the base and the adapter."""
        return self.base.id.removesuffix(".gguf") + (f" + {self.adapter.id}" if self.adapter else "")


def run_size_sweep(  # noqa: PLR0913 - options of a sweep, each with its default
    inputs: SweepInputs,
    targets: Sequence[SizeTarget],
    *,
    stock: Sequence[StockFormat] = STOCK,
    data: Path | None = None,
    tokens: int = 4096,
    keep: Path | None = None,
    stage: Stage = lambda name: no_progress,
) -> SizeSweepReport:
    """Make a planned file of each size and llama.cpp's files, and compare all with full precision.

    Besides the reference, one file exists at a time: each is deleted once it is measured.

    Args:
        inputs: what the files are made from.
        targets: the sizes, at least one; all for the same processor and preference.
        stock: the files that llama.cpp makes.
        data: texts to measure on, as JSON lines; by default the built-in held-out ones.
        tokens: maximum number of positions to compare.
        keep: a folder in which all files remain; by default a temporary one in the cache.
        stage: makes the progress callback of each stage.

    Raises:
        ThirteenError: an input is invalid, a size cannot be met, or a file cannot be written.
    """
    read_passages(data or held_out_texts())  # reports an invalid file before any work
    importance = inputs.importance or cached_importance(
        inputs.base, inputs.adapter, calibration=inputs.calibration, threads=inputs.threads, stage=stage
    )
    inputs = replace(inputs, importance=importance)
    with _output_folder(keep) as folder:
        reference = folder / f"{inputs.slug}-full.gguf"
        precision = "F32" if inputs.weights <= _F32_WEIGHTS_MAX else "F16"
        full = inputs.convert(reference, precision, stage("making the reference"))
        sizes = _distinct(targets, inputs.weights)
        jobs = [
            *(_planned(inputs, target) for target in sizes),
            *(_trimmed(inputs, target) for target in sizes if inputs.vocabulary),
            *(_stock(inputs, reference, one) for one in stock),
        ]
        entries = _entries(jobs, folder / inputs.slug, keep=keep is not None, stage=stage)
        curve = kl_curve.run_curve(
            reference, entries, data=data, tokens=tokens, threads=inputs.threads, scratch=folder, stage=stage
        )
    return _report(full, targets[0], curve)


class _Job(NamedTuple):
    """A file to make: `make` writes it and returns its predicted KL divergence, if there is one."""

    kind: FileKind
    name: str
    make: Callable[[Path, Progress], float | None]


def _planned(inputs: SweepInputs, target: SizeTarget) -> _Job:
    def make(path: Path, progress: Progress) -> float | None:
        prediction = inputs.convert(path, target, progress).prediction
        return None if prediction is None else prediction.divergence

    return _Job("planned", target.size.text, make)


def _trimmed(inputs: SweepInputs, target: SizeTarget) -> _Job:
    """The job of a file with fewer tokens and as many bytes as the planned one."""
    size = FileSize(target.size.text, target.size.file_bytes(inputs.weights), unit=1)
    of_equal_size = replace(target, size=size)

    def make(path: Path, progress: Progress) -> float | None:
        prediction = inputs.convert(path, of_equal_size, progress, inputs.vocabulary).prediction
        return None if prediction is None else prediction.divergence

    return _Job("trimmed", target.size.text, make)


def _stock(inputs: SweepInputs, reference: Path, stock: StockFormat) -> _Job:
    def make(path: Path, progress: Progress) -> None:
        quantize_stock(reference, path, stock, importance=inputs.importance, threads=inputs.threads)
        progress(1, 1)

    return _Job(stock.kind, stock.name, make)


def _entries(jobs: Sequence[_Job], prefix: Path, *, keep: bool, stage: Stage) -> Iterator[CurveEntry]:
    """Make each file when it is requested, and delete it before the next one."""
    for number, job in enumerate(jobs, 1):
        path = prefix.with_name(f"{prefix.name}-{job.kind}-{_slug(job.name)}.gguf")
        progress = stage(f"{number} of {len(jobs)}: making {job.kind} {job.name}")
        yield CurveEntry(job.kind, job.name, path, job.make(path, progress))
        if not keep:
            path.unlink()


def _distinct(targets: Sequence[SizeTarget], weights: int) -> list[SizeTarget]:
    """Each size once, smallest first: a size that cannot be met is mostly the smallest, and fails early."""
    by_size = {target.size.text: target for target in targets}
    return sorted(by_size.values(), key=lambda target: target.size.file_bytes(weights))


def _report(full: ConversionReport, target: SizeTarget, curve: CurveReport) -> SizeSweepReport:
    assert full.importance is not None, "it was given"
    return SizeSweepReport(
        base=full.base,
        adapter=full.adapter,
        importance=full.importance,
        target=target.costs.target,
        prefer=target.prefer,
        warnings=full.warnings,
        curve=curve,
    )


def _slug(name: str) -> str:
    """Make a name part of a file name."""
    return re.sub(r"[^\w.+-]+", "-", name.removesuffix(".gguf"))


@contextmanager
def _output_folder(keep: Path | None) -> Iterator[Path]:
    if keep is None:
        with temporary_folder("curve") as folder:
            yield folder
        return
    make_folder(keep)
    yield keep


def check_results(folder: Path) -> None:
    """Raise OutputError if results cannot be plotted, or cannot be written to `folder`."""
    plot.check_plot()
    check_folder(folder)


def write_results(report: SizeSweepReport, folder: Path) -> list[Path]:
    """Write the report as JSON and its plot as SVG and PNG.

    Returns:
        The files, named after the model.

    Raises:
        OutputError: a file cannot be written, or matplotlib is missing.
    """
    text = json.dumps(asdict(report), indent=1, allow_nan=False) + "\n"
    title = f"{report.model}: KL divergence against file size, planned for {report.prefer}"
    contents = {
        ".json": text.encode(),
        ".svg": plot.draw_curve(report.curve, title, "svg"),
        ".png": plot.draw_curve(report.curve, title, "png"),
    }
    make_folder(folder)
    files = {folder / f"curve-{_slug(report.model)}{ending}": data for ending, data in contents.items()}
    for path, data in files.items():
        with atomic_write(path) as file:
            file.write(data)
    return list(files)
