"""The best files that sizes allow: planned ones, made and measured beside those of llama.cpp itself."""

import json
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from math import prod
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from ..bench.peers.llama_quantize import MIXES, UNIFORM, StockFormat, quantize_stock
from ..bench.size import kl_curve
from ..bench.size import plot
from ..bench.size.kl_curve import CurveEntry, CurveReport
from ..bench.size.size_matched import FileKind
from ..convert.merged_view import AdapterSource, WeightsSource
from ..convert.pipeline import ConversionReport, convert
from ..convert.quantize.size_planner import SizeTarget
from ..convert.source.checkpoint import open_checkpoint
from ..files.cache_folder import cache_dir
from ..files.output import check_folder, make_folder, output_errors
from ..files.progress import Progress, Stage, no_progress
from ..models.texts import held_out_texts
from ..runtime.calibration.corpus import read_passages
from .importance_cache import cached_importance

STOCK = (*UNIFORM, *MIXES)
_F32_MOST = 1_000_000_000  # weights: a larger model's reference is F16, half of the disk and of the time


@dataclass(frozen=True)
class SizeSweepReport:
    """What was made, of what, and how it compares; dataclasses.asdict makes it JSON.

    Attributes:
        base: the base.
        adapter: what was merged into all files; None if nothing was.
        importance: what all files were made with.
        target: the kind of processor that was planned for.
        prefer: what was preferred, see convert.budget.Wish.
        warnings: what is to be known about it.
        curve: what was measured.
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
        """The base's name, and the adapter's."""
        return self.base.id.removesuffix(".gguf") + (f" + {self.adapter.id}" if self.adapter else "")


def run_size_sweep(  # noqa: PLR0913 - what the files can be made with, each with its default
    base: Path,
    wishes: Sequence[SizeTarget],
    *,
    adapter: Path | None = None,
    importance: Path | None = None,
    calibration: Path | None = None,
    base_id: str = "",
    adapter_id: str = "",
    stock: Sequence[StockFormat] = STOCK,
    data: Path | None = None,
    tokens: int = 4096,
    threads: int | None = None,
    keep: Path | None = None,
    stage: Stage = lambda name: no_progress,
) -> SizeSweepReport:
    """Make a planned file of each size and llama.cpp's files, and measure them all beside full precision.

    There is one file at a time, besides the reference: they lie in the cache, each until it was measured.

    Args:
        base: see convert.pipeline.convert().
        wishes: the sizes, at least one; all for one target and preference.
        adapter: a PEFT folder.
        importance: an importance file; measured and cached unless given.
        calibration: the texts for that, see calibration.cached_importance().
        base_id: the base's name.
        adapter_id: likewise the adapter's.
        stock: what llama.cpp is to make.
        data: the texts to measure on, see bench.curve.run().
        tokens: the most positions to compare.
        threads: that quantize and compute.
        keep: a folder where all files are to stay instead.
        stage: gives what to call with the progress of each stage.

    Raises:
        ThirteenError: one of its kinds, for whatever is wrong with an input.
    """
    read_passages(data or held_out_texts())  # a bad file is known before the work
    importance = importance or cached_importance(
        base, adapter, calibration=calibration, threads=threads, stage=stage
    )
    weights = sum(prod(spec.shape) for spec in open_checkpoint(base).specs.values())
    with _folder(keep) as folder:
        made = _SweepInputs(base, adapter, importance, base_id, adapter_id, threads)
        prefix = folder / _slug("+".join(filter(None, (base_id or base.name, adapter_id))))
        reference = prefix.with_name(f"{prefix.name}-full.gguf")
        full = made.converted(
            reference, stage("making the reference"), type_="F32" if weights <= _F32_MOST else "F16"
        )
        orders = [
            *map(made.planned, _distinct(wishes, weights)),
            *(made.stock(reference, one) for one in stock),
        ]
        measured = kl_curve.run_curve(
            reference,
            _entries(orders, prefix, keep=keep is not None, stage=stage),
            data=data,
            tokens=tokens,
            threads=threads,
            scratch=folder,
            stage=stage,
        )
    assert full.importance is not None, "it was given"
    return SizeSweepReport(
        base=full.base,
        adapter=full.adapter,
        importance=full.importance,
        target=wishes[0].costs.target,
        prefer=wishes[0].prefer,
        warnings=full.warnings,
        curve=measured,
    )


class _FileOrder(NamedTuple):
    """A file to make: `make` writes it and returns the KL divergence that it predicts, if any."""

    kind: FileKind
    name: str
    make: Callable[[Path, Progress], float | None]


@dataclass(frozen=True)
class _SweepInputs:
    """What all files are made of."""

    base: Path
    adapter: Path | None
    importance: Path
    base_id: str
    adapter_id: str
    threads: int | None

    def converted(
        self, path: Path, progress: Progress, *, type_: str | None = None, wish: SizeTarget | None = None
    ) -> ConversionReport:
        """A file of ours."""
        return convert(
            self.base,
            path,
            quantization=type_,
            quantization=wish,
            importance=self.importance,
            adapter=self.adapter,
            base_id=self.base_id,
            adapter_id=self.adapter_id,
            threads=self.threads,
            progress=progress,
        )

    def planned(self, wish: SizeTarget) -> _FileOrder:
        """A file of ours, of a size."""

        def make(path: Path, progress: Progress) -> float | None:
            prediction = self.converted(path, progress, wish=wish).prediction
            return None if prediction is None else prediction.divergence

        return _FileOrder("planned", wish.size.text, make)

    def stock(self, reference: Path, stock: StockFormat) -> _FileOrder:
        """A file of llama.cpp's."""

        def make(path: Path, progress: Progress) -> None:
            quantize_stock(reference, path, stock, importance=self.importance, threads=self.threads)
            progress(1, 1)

        return _FileOrder(stock.kind, stock.name, make)


def _entries(orders: Sequence[_FileOrder], prefix: Path, *, keep: bool, stage: Stage) -> Iterator[CurveEntry]:
    """Make each file when it is asked for, and delete it when the next one is."""
    for number, order in enumerate(orders, 1):
        path = prefix.with_name(f"{prefix.name}-{order.kind}-{_slug(order.name)}.gguf")
        progress = stage(f"{number} of {len(orders)}: making {order.kind} {order.name}")
        yield CurveEntry(order.kind, order.name, path, order.make(path, progress))
        if not keep:
            path.unlink()


def _distinct(wishes: Sequence[SizeTarget], weights: int) -> list[SizeTarget]:
    """Each size once, the smallest first: if one cannot be had, that mostly shows at once."""
    once = {wish.size.text: wish for wish in wishes}
    return sorted(once.values(), key=lambda wish: wish.size.file_bytes(weights))


def _slug(name: str) -> str:
    """A name as a part of a file's name."""
    return re.sub(r"[^\w.+-]+", "-", name.removesuffix(".gguf"))


@contextmanager
def _folder(keep: Path | None) -> Iterator[Path]:
    if keep is None:
        with TemporaryDirectory(prefix="curve-", dir=cache_dir()) as folder:
            yield Path(folder)
        return
    make_folder(keep)
    yield keep


def check_results(folder: Path) -> None:
    """Raise OutputError if results cannot be drawn, or written there: before the work, not after."""
    plot.check_plot()
    check_folder(folder)


def write_results(report: SizeSweepReport, folder: Path) -> list[Path]:
    """Write the figures as JSON and the plot as SVG and PNG.

    Returns:
        The files, named after the model.

    Raises:
        OutputError: they cannot be written, or there is nothing to draw with.
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
        with output_errors(path):
            path.write_bytes(data)
    return list(files)
