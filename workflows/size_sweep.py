"""Sweep over file sizes: planned files and llama.cpp's own, made and measured one after the other."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from itertools import chain
from pathlib import Path

from ..bench.peers.llama_quantize import MIXES, UNIFORM
from ..bench.size import kl_curve, plot
from ..bench.size.kl_curve import CurveQuestions, CurveReport
from ..convert.pipeline import ConversionReport
from ..convert.provenance import AdapterSource, WeightsSource
from ..convert.quantize.size_planner import SizeTarget
from ..files.atomic_write import atomic_write
from ..files.output import check_folder, make_folder
from ..files.progress import Stage, no_progress
from ..files.temporary_folder import temporary_folder
from ..models.texts import held_out_texts
from ..runtime.calibration.corpus import read_passages
from .importance_cache import cached_importance
from .sweep_files import SIMILAR_STOCK, SweepInputs, SweepRivals, absent_quantizers, file_slug, sweep_files

ALL_STOCK = (*UNIFORM, *MIXES)
# The reference of a larger model is F16, which halves its size and time.
_F32_WEIGHTS_MAX = 1_000_000_000


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
    rivals: SweepRivals = SIMILAR_STOCK,
    *,
    data: Path | None = None,
    tokens: int = 4096,
    questions: CurveQuestions | None = None,
    keep: Path | None = None,
    stage: Stage = lambda name: no_progress,
) -> SizeSweepReport:
    """Make a planned file of each size and the files of others, and compare all with full precision.

    Besides the reference, one file exists at a time: each is deleted once it is measured.

    Args:
        inputs: what the files are made from.
        targets: the sizes, at least one; all for the same processor and preference.
        rivals: the files of others; by default llama.cpp's around the sizes.
        data: texts to measure on, as JSON lines; by default the built-in held-out ones.
        tokens: maximum number of positions to compare.
        questions: questions that all files answer; by default none.
        keep: a folder in which all files remain; by default a temporary one in the cache.
        stage: makes the progress callback of each stage.

    Raises:
        ThirteenError: an input is invalid, a size cannot be met, or a file cannot be written.
    """
    read_passages(data or held_out_texts())  # reports an invalid file before any work
    if keep is not None:
        check_folder(keep)
    importance = inputs.importance or cached_importance(
        inputs.base, inputs.adapter, calibration=inputs.calibration, threads=inputs.threads, stage=stage
    )
    inputs = replace(inputs, importance=importance)
    with _output_folder(keep) as folder:
        reference = folder / f"{inputs.slug}-full.gguf"
        precision = "F32" if inputs.weights <= _F32_WEIGHTS_MAX else "F16"
        full = inputs.convert(reference, precision, stage("making the reference"))
        files = sweep_files(inputs, targets, rivals, reference, keep=keep is not None, stage=stage)
        curve = kl_curve.run_curve(
            reference,
            chain(absent_quantizers(rivals.quantizers), files),
            data=data,
            tokens=tokens,
            questions=questions,
            threads=inputs.threads,
            scratch=folder,
            stage=stage,
        )
    return _report(full, targets[0], curve)


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
    files = {folder / f"curve-{file_slug(report.model)}{ending}": data for ending, data in contents.items()}
    for path, data in files.items():
        with atomic_write(path) as file:
            file.write(data)
    return list(files)
