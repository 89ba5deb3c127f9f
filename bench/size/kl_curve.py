"""KL divergence against file size: files that were planned, beside those that llama.cpp itself makes.

All read the same held-out texts and are compared with one reference, position by position; each planned file
is then set against the stock files of its size.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import groupby
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO

import numpy as np
from numpy.typing import NDArray
from rich.console import Group
from rich.table import Table
from rich.text import Text

from ...files.gguf_header import Header
from ...files.hashing import file_sha256
from ...files.progress import Progress, Stage, no_progress
from ...models.texts import held_out_texts
from ...runtime.engine.engine import Engine
from ...runtime.llama.logits import Logits, log_softmax
from ...runtime.request import check_integer
from ..fidelity.kl_divergence import (
    PositionDivergence,
    position_divergence,
    summarize_divergence,
)
from ..fidelity.model_roles import ModelFile, ModelSource, describe_model
from ..fidelity.text_logits import (
    check_vocabulary,
    few_texts_warning,
    open_reader,
    passages_of,
    read_windows,
    window_logits,
)
from ..fidelity.windows import Window
from ..harness.environment import Build, Machine, this_build, this_machine
from ..harness.schedule import ProgressCounter
from .size_matched import SIZE_TOLERANCE, STOCK_KINDS, StockComparison, CurvePoint, FileKind, MeasuredFile, compare_at_equal_size

KL_RATIO_GOAL = 0.8  # of the best stock file's KL divergence at equal bytes: what a plan is to come to at most


@dataclass(frozen=True, slots=True)
class CurveEntry:
    """A file to measure; see Point.

    Attributes:
        kind: planned, or a stock file of one of two kinds.
        name: the size that was asked for, or what llama.cpp calls the type or the mix.
        path: where it lies until the next entry is asked for.
        predicted_kl: KL divergence that it was planned to have, in nats; None where nothing was predicted.
    """

    kind: FileKind
    name: str
    path: Path
    predicted_kl: float | None = None


@dataclass(frozen=True, slots=True)
class CurveReport:
    """All that was measured, and with what; dataclasses.asdict makes it JSON.

    Attributes:
        date: when it began, in UTC.
        machine: where.
        build: with which versions.
        reference: the model in full precision.
        weights: how many it has.
        data: the file of the texts.
        data_sha256: its hash, in hexadecimal.
        passages: how many texts were read.
        positions: how many predictions of each file were compared.
        points: the files, from the smallest to the largest.
        comparisons: of each planned file with the stock files of each kind.
        verdict: what it comes to in words, a line each.
    """

    date: str
    machine: Machine
    build: Build
    reference: ModelFile
    weights: int
    data: str
    data_sha256: str
    passages: int
    positions: int
    points: tuple[CurvePoint, ...]
    comparisons: tuple[StockComparison, ...]
    verdict: tuple[str, ...]


def run_curve(  # noqa: PLR0913 - what a measurement can be told, each with its default
    reference: Path,
    entries: Iterable[CurveEntry],
    *,
    data: Path | None = None,
    tokens: int = 4096,
    threads: int | None = None,
    scratch: Path | None = None,
    stage: Stage = lambda name: no_progress,
) -> CurveReport:
    """Measure files beside one reference, one after the other, over texts that they were not made from.

    One model is loaded at a time. The reference computes once; its logits are kept in a file meanwhile, four
    bytes for each position and token of the vocabulary.

    Args:
        reference: the model in full precision, a GGUF file.
        entries: the files, at least one; each is asked for when the one before it was measured, so that they
            can be made and deleted on the way.
        data: texts as JSON lines, see runtime.passages; by default those that come along.
        tokens: the most positions to compare.
        threads: that compute; by default one for each physical core.
        scratch: the folder for the reference's logits; by default the system's for temporary files.
        stage: gives what to call with the tokens computed and those to compute, for each file.

    Raises:
        ModelFileError: a file is not a GGUF, is damaged, cannot be run by this build, or has a vocabulary
            other than the reference's; or what a model computes is not finite.
        RequestError: a number is out of bounds, or `data` holds no text.
        ThirteenError: whatever `entries` raises.
    """
    check_integer("bench: tokens", tokens, 1)
    data = held_out_texts() if data is None else data
    date, machine = datetime.now(UTC).isoformat(timespec="seconds"), this_machine()
    with TemporaryFile(dir=scratch) as kept:
        expected = _read_reference(reference, data, tokens, threads, kept, stage("reading the reference"))
        measured = [
            _measure(entry, expected, threads, stage(f"reading {entry.kind} {entry.name}"))
            for entry in entries
        ]
    measured.sort(key=lambda one: one.point.file_bytes)
    comparisons = tuple(
        compare_at_equal_size(one, measured, kind, expected.passages)
        for one in measured
        if one.point.kind == "planned"
        for kind in STOCK_KINDS
    )
    texts = len(np.unique(expected.passages))
    return CurveReport(
        date=date,
        machine=machine,
        build=this_build(),
        reference=describe_model(ModelSource(reference)),
        weights=expected.header.weights,
        data=str(data),
        data_sha256=file_sha256(data),
        passages=texts,
        positions=len(expected.passages),
        points=tuple(one.point for one in measured),
        comparisons=comparisons,
        verdict=(*_verdict(comparisons), *few_texts_warning(texts)),
    )


@dataclass(frozen=True, slots=True)
class _Expected:
    """What the reference predicts.

    Attributes:
        header: of its file.
        pieces: what was read.
        passages: the passage that each position is from, (positions,).
        logits: at each position that counts, (positions, vocab), read from disk as they are looked at.
    """

    header: Header
    pieces: Sequence[Window]
    passages: NDArray[np.int64]
    logits: Logits


def _read_reference(  # noqa: PLR0913, PLR0917 - as run_curve(), with the file for the logits
    reference: Path, data: Path, tokens: int, threads: int | None, kept: IO[bytes], progress: Progress
) -> _Expected:
    with open_reader(reference, threads) as model:
        pieces = read_windows(model, data, model.context, tokens)
        for piece, logits in _predictions(model, pieces, progress):
            kept.write(logits[piece.counted].tobytes())  # written, not mapped: a full disk is an error then
        kept.flush()
        passages, vocabulary = passages_of(pieces), model.model.vocabulary_size
        logits = np.memmap(kept, np.float32, "r", shape=(len(passages), vocabulary))
        return _Expected(model.model.header, pieces, passages, logits)


def _predictions(
    model: Engine, pieces: Sequence[Window], progress: Progress
) -> Iterator[tuple[Window, Logits]]:
    """Each piece with what the model predicts after its tokens, (n, vocab)."""
    tick = ProgressCounter(progress, sum(len(piece.tokens) for piece in pieces))
    for piece in pieces:
        yield piece, window_logits(model, piece)
        tick(len(piece.tokens))


def _measure(entry: CurveEntry, expected: _Expected, threads: int | None, progress: Progress) -> MeasuredFile:
    with open_reader(entry.path, threads) as model:
        header = model.model.header
        check_vocabulary(expected.header, header)
        rows = iter(expected.logits)
        found = [
            position_divergence(
                log_softmax(next(rows), np.float64),
                log_softmax(logits[at], np.float64),
                piece.tokens[at + 1],
            )
            for piece, logits in _predictions(model, expected.pieces, progress)
            for at in piece.counted
        ]
    differences = np.array(found)  # (positions, 4)
    point = CurvePoint(
        kind=entry.kind,
        name=entry.name,
        file_bytes=header.file_bytes,
        bits_per_weight=8 * header.file_bytes / header.weights,
        sha256=file_sha256(entry.path),
        divergence=summarize_divergence(differences, expected.passages),
        predicted_kl=entry.predicted_kl,
    )
    return MeasuredFile(point, differences[:, PositionDivergence._fields.index("kl")])


def _verdict(comparisons: Sequence[StockComparison]) -> Iterator[str]:
    sizes = [tuple(of) for _, of in groupby(comparisons, key=lambda one: one.planned)]
    for of in sizes:
        yield f"{of[0].planned}: KL divergence " + ", ".join(map(_beside, of))
    if sizes:
        ratios = [[one.ratio.estimate for one in of if one.ratio] for of in sizes]
        reached = sum(max(of) <= KL_RATIO_GOAL for of in ratios if of)
        yield f"at most {KL_RATIO_GOAL} of the best stock files' of their size: {reached} of {len(sizes)} planned"


def _beside(one: StockComparison) -> str:
    if one.ratio is None:
        return f"beside no {one.kind} file, as none is so small"
    return f"{one.ratio.text(2)} of {one.kind} {one.best}'s"


def curve_table(report: CurveReport) -> Group:
    """All files by size, then each planned one beside the stock files of its size; verdict below."""
    return Group(_files(report), "", _comparisons(report))


def _files(report: CurveReport) -> Table:
    out = Table(title="KL divergence from the reference by file size")
    out.add_column("kind")
    out.add_column("file")
    for name in ("MB", "bits a weight", "KL, nats (95 %)", "predicted", "same likeliest token, %"):
        out.add_column(name, justify="right")
    for point in report.points:
        out.add_row(
            point.kind,
            Text(point.name),
            f"{point.file_bytes / 1e6:.2f}",
            f"{point.bits_per_weight:.2f}",
            point.divergence.kl_mean.text(4),
            "" if point.predicted_kl is None else f"{point.predicted_kl:.4f}",
            point.divergence.same_top.text(1, 100),
            style="bold" if point.kind == "planned" else None,
        )
    return out


def _comparisons(report: CurveReport) -> Table:
    out = Table(
        title="KL divergence of planned files as a part of that of stock files at equal bytes",
        caption=Text(_caption(report)),
        caption_justify="left",
    )
    out.add_column("planned")
    for kind in STOCK_KINDS:
        for name in (f"best {kind} file", "of its (95 %)", f"of the {kind} curve's"):
            out.add_column(name, justify="right")
    for planned, of in groupby(report.comparisons, key=lambda one: one.planned):
        out.add_row(Text(planned), *(cell for one in of for cell in _cells(one)))
    return out


def _cells(one: StockComparison) -> tuple[str, str, str]:
    return (
        "none"
        if one.best is None or one.best_bytes is None
        else f"{one.best}, {one.best_bytes / 1e6:.2f} MB",
        "" if one.ratio is None else one.ratio.text(3),
        "" if one.curve_ratio is None else f"{one.curve_ratio:.3f}",
    )


def _caption(report: CurveReport) -> str:
    reference = report.reference
    return "\n".join(
        (
            *report.verdict,
            f"{report.positions:,} positions of {report.passages} texts in {Path(report.data).name}; "
            f"reference: {reference.bits_per_weight:.2f} bits a weight",
            f"best file: of at most {SIZE_TOLERANCE} times the bytes; curve: through the best files, at these bytes",
            f"{report.machine.cpu}, llama-cpp-python {report.build.llama_cpp_python}",
        )
    )
