"""The files of a size sweep, made one by one: planned ones, llama.cpp's and those of other quantizers."""

import re
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from ..bench.peers.llama_quantize import StockFormat, quantize_stock
from ..bench.size.auto_round import quantize_with_auto_round
from ..bench.size.kl_curve import AbsentFile, CurveEntry
from ..bench.size.quantizers import (
    AUTO_ROUND_ITERATIONS,
    Quantizer,
    formats_around,
    schemes_around,
)
from ..bench.size.size import StockSize, stock_file_sizes
from ..bench.size.size_matched import SIZE_TOLERANCE, FileKind
from ..convert.pipeline import ConversionReport, convert
from ..convert.provenance import DEFAULT_IDS, SourceIds
from ..convert.quantize.file_size import FileSize
from ..convert.quantize.size_planner import SizeTarget
from ..convert.source.checkpoint import open_checkpoint
from ..convert.tensors import count_weights
from ..convert.vocabulary.vocabulary_list import VocabularyList
from ..errors import OutputError, ThirteenError
from ..files.gguf.header import read_header
from ..files.progress import Progress, Stage
from ..models.texts import calibration_texts
from ..runtime.calibration.chunks import Chunk
from .importance_cache import calibration_chunks
from .refine import refine_file


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
        search_scales: whether the scales of a second planned file of each size are searched.
        refine: minutes for which the scales of a further planned file of each size are tuned, searched before
            with `search_scales`; None for no such files.
    """

    base: Path
    adapter: Path | None = None
    importance: Path | None = None
    calibration: Path | None = None
    ids: SourceIds = DEFAULT_IDS
    threads: int | None = None
    vocabulary: VocabularyList | None = None
    search_scales: bool = False
    refine: float | None = None

    @cached_property
    def weights(self) -> int:
        """Number of the model's weights."""
        return count_weights(open_checkpoint(self.base).specs.values())

    @cached_property
    def calibration_chunks(self) -> list[Chunk]:
        """The calibration text that other quantizers get: the one that the importance is measured on."""
        return calibration_chunks(open_checkpoint(self.base), self.calibration or calibration_texts())

    @property
    def slug(self) -> str:
        """Start of the file names."""
        return file_slug("+".join(filter(None, (self.ids.base or self.base.name, self.ids.adapter))))

    def convert(
        self,
        output: Path,
        quantization: str | SizeTarget,
        progress: Progress,
        variant: FileKind = "planned",
    ) -> ConversionReport:
        """Write a planned file, one of its variants, or a file of one type."""
        vocabulary = self.vocabulary if variant == "trimmed" else None
        report = convert(
            self.base,
            output,
            quantization=quantization,
            importance=self.importance,
            adapter=self.adapter,
            vocabulary=vocabulary,
            search_scales=self.search_scales and variant in {"searched", "refined"},
            refine=variant == "refined",
            ids=self.ids,
            threads=self.threads,
            progress=progress,
        )
        if variant == "refined":
            assert self.refine is not None, "there is no such file without minutes"
            refine_file(
                output,
                self.base,
                self.refine,
                adapter=self.adapter,
                vocabulary=vocabulary,
                calibration=self.calibration,
                threads=self.threads,
                progress=progress,
            )
        return report


@dataclass(frozen=True, slots=True)
class SweepRivals:
    """The files that planned ones are compared with.

    Attributes:
        stock: formats of llama.cpp; None for those around the planned sizes.
        quantizers: other quantizers. A planned file of equal size is made for each of their files.
        timeout_s: seconds that one of them may take for a file.
    """

    stock: Sequence[StockFormat] | None = None
    quantizers: Sequence[Quantizer] = ()
    timeout_s: float | None = None


SIMILAR_STOCK = SweepRivals()


class _Job(NamedTuple):
    """A file to make.

    Attributes:
        kind: see CurvePoint.
        name: see CurvePoint.
        make: writes it and returns its predicted KL divergence, if there is one.
        target: settings of a planned file of equal size; None for no such file.
        given: the file, if the user has it already.
        optional: whether the sweep goes on without it if it cannot be made.
        target_bytes: size that it is planned for; None for other files.
    """

    kind: FileKind
    name: str
    make: Callable[[Path, Progress], float | None]
    target: SizeTarget | None = None
    given: Path | None = None
    optional: bool = False
    target_bytes: int | None = None


def sweep_files(  # noqa: PLR0913 - what a sweep is made of
    inputs: SweepInputs,
    targets: Sequence[SizeTarget],
    rivals: SweepRivals,
    reference: Path,
    *,
    keep: bool,
    stage: Stage,
) -> Iterator[CurveEntry | AbsentFile]:
    """Make each file in the folder of the reference when it is requested, and delete it before the next one.

    Args:
        inputs: what the files are made from.
        targets: sizes of the planned files.
        rivals: the files to compare with.
        reference: the model in full precision.
        keep: leave the files in the folder.
        stage: makes the progress callback of each stage.

    Raises:
        ThirteenError: a planned file or one of llama.cpp's cannot be made. Those of other quantizers, and
            planned ones of equal size, are absent instead.
    """
    queue, number = deque(_jobs(inputs, targets, rivals, reference)), 0
    while queue:
        job, number = queue.popleft(), number + 1
        path = job.given or _path(reference, inputs, job)
        progress = stage(f"{number} of {number + len(queue)}: making {job.kind} {job.name}")
        try:
            predicted_kl = job.make(path, progress)
        except ThirteenError as error:
            if not job.optional:
                raise
            yield AbsentFile(job.kind, job.name, str(error))
            continue
        if job.target:
            queue.extend(_planned_of_equal_size(inputs, job.target, path, queue))
        yield CurveEntry(job.kind, job.name, path, predicted_kl, job.target_bytes)
        if not (keep or job.given):
            path.unlink()


def absent_quantizers(quantizers: Sequence[Quantizer]) -> Iterator[AbsentFile]:
    """The quantizers that can make no file here, with the reason."""
    for quantizer in quantizers:
        if quantizer.missing:
            yield AbsentFile(quantizer.name, quantizer.name, quantizer.missing)


def file_slug(name: str) -> str:
    """Make a name part of a file name."""
    return re.sub(r"[^\w.+-]+", "-", name.removesuffix(".gguf"))


def _path(reference: Path, inputs: SweepInputs, job: _Job) -> Path:
    return reference.with_name(f"{inputs.slug}-{job.kind}-{file_slug(job.name)}.gguf")


def _jobs(
    inputs: SweepInputs, targets: Sequence[SizeTarget], rivals: SweepRivals, reference: Path
) -> Iterator[_Job]:
    targets = _distinct(targets, inputs.weights)
    requested: dict[FileKind, object] = {
        "planned": True,
        "searched": inputs.search_scales,
        "refined": inputs.refine,
        "trimmed": inputs.vocabulary,
    }
    for kind in (kind for kind, wanted in requested.items() if wanted):
        yield from (_planned(inputs, target, kind) for target in targets)
    present = [quantizer for quantizer in rivals.quantizers if not quantizer.missing]
    stock: tuple[StockSize, ...] = ()
    if rivals.stock is None or present:
        stock = stock_file_sizes(read_header(reference))
    sizes = [target.size.file_bytes(inputs.weights) for target in targets]
    formats = rivals.stock
    if formats is None:
        formats = formats_around([int(SIZE_TOLERANCE * size) for size in sizes], stock)
    yield from (_stock(inputs, reference, one) for one in formats)
    for quantizer in present:
        if quantizer.file:
            yield _given(quantizer, quantizer.file, targets[0])
        else:
            for scheme in schemes_around(sizes, stock):
                yield _auto_round(inputs, reference, quantizer, scheme, targets[0], rivals.timeout_s)


def _planned(
    inputs: SweepInputs,
    target: SizeTarget,
    kind: FileKind = "planned",
    *,
    optional: bool = False,
) -> _Job:
    """The job of a planned file or one of its variants; one with fewer tokens has as many bytes."""
    nbytes = target.size.file_bytes(inputs.weights)
    of_equal_size = (
        replace(target, size=FileSize(target.size.text, nbytes, unit=1)) if kind == "trimmed" else target
    )

    def make(path: Path, progress: Progress) -> float | None:
        prediction = inputs.convert(path, of_equal_size, progress, kind).prediction
        return None if prediction is None else prediction.divergence

    return _Job(kind, target.size.text, make, optional=optional, target_bytes=nbytes)


def _planned_of_equal_size(
    inputs: SweepInputs, target: SizeTarget, file: Path, queue: Sequence[_Job]
) -> Iterator[_Job]:
    """The job of a planned file of the same size as another one, unless it is in the queue."""
    file_bytes = file.stat().st_size
    size = FileSize(f"{file_bytes / 1e6:.2f}MB", file_bytes, unit=1)
    if all((job.kind, job.name) != ("planned", size.text) for job in queue):
        yield _planned(inputs, replace(target, size=size), optional=True)


def _stock(inputs: SweepInputs, reference: Path, stock: StockFormat) -> _Job:
    def make(path: Path, progress: Progress) -> None:
        quantize_stock(reference, path, stock, importance=inputs.importance, threads=inputs.threads)
        progress(1, 1)

    return _Job(stock.kind, stock.name, make)


def _auto_round(  # noqa: PLR0913, PLR0917 - what its files are made from
    inputs: SweepInputs,
    reference: Path,
    quantizer: Quantizer,
    scheme: str,
    target: SizeTarget,
    timeout_s: float | None,
) -> _Job:
    def make(path: Path, progress: Progress) -> None:
        quantize_with_auto_round(
            reference,
            path,
            scheme,
            iterations=AUTO_ROUND_ITERATIONS[quantizer.name],
            chunks=inputs.calibration_chunks,
            threads=inputs.threads,
            timeout_s=timeout_s,
        )
        progress(1, 1)

    return _Job(quantizer.name, scheme, make, target, optional=True)


def _given(quantizer: Quantizer, file: Path, target: SizeTarget) -> _Job:
    def make(path: Path, progress: Progress) -> None:
        if not path.is_file():
            raise OutputError(f"{path}: the file is gone")
        progress(1, 1)

    return _Job(quantizer.name, file.stem, make, target, given=file, optional=True)


def _distinct(targets: Sequence[SizeTarget], weights: int) -> list[SizeTarget]:
    """Each size once, smallest first: a size that cannot be met is mostly the smallest, and fails early."""
    by_size = {target.size.text: target for target in targets}
    return sorted(by_size.values(), key=lambda target: target.size.file_bytes(weights))
