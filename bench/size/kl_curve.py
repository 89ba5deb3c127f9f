"""KL divergence against file size: planned files against llama.cpp's own (stock) files and other quantizers'.

All files are measured on the same held-out texts, position by position against one reference, and each
planned file is compared with the other files of its size.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO

import numpy as np
from numpy.typing import NDArray
from rich.console import Group
from rich.table import Table
from rich.text import Text

from ...errors import ThirteenError
from ...files.gguf.header import Header, read_header
from ...files.hashing import file_sha256
from ...files.progress import Progress, Stage, no_progress
from ...models.texts import held_out_texts
from ...runtime.calibration.corpus import read_passages
from ...runtime.engine.engine import Engine
from ...runtime.llama.logits import Logits, log_softmax
from ...runtime.validation import check_integer
from ...stats.bootstrap import grouped_mean
from ...stats.interval import FloatArray, Interval
from ..accuracy.accuracy import run_accuracy
from ..accuracy.accuracy_metrics import Scores
from ..accuracy.datasets import QuestionSet
from ..accuracy.prompt_settings import PromptSettings
from ..fidelity.kl_divergence import (
    PositionDivergence,
    position_divergence,
    summarize_divergence,
)
from ..fidelity.model_roles import ModelFile, ModelSource, describe_model
from ..fidelity.text_logits import (
    WindowPrediction,
    answer_positions,
    few_texts_warning,
    load_for_logits,
    read_windows,
    scored_passages,
)
from ..fidelity.token_map import TokenMap
from ..fidelity.vocabulary_coverage import measure_coverage
from ..fidelity.windows import Window
from ..harness.environment import BenchReport, ReportHead, report_head
from ..harness.format import report_table
from ..harness.schedule import ProgressCounter
from .quantizers import QUANTIZERS
from .size_matched import (
    PLANNED_KINDS,
    SIZE_TOLERANCE,
    STOCK_KINDS,
    CurvePoint,
    FileKind,
    MeasuredFile,
    OtherKind,
    StockComparison,
    Variant,
    VariantComparison,
    compare_at_equal_size,
    compare_variants,
)

KL_RATIO_GOAL = 0.8  # KL divergence of a planned file / of the best other file of its size, at most


@dataclass(frozen=True, slots=True)
class CurveEntry:
    """A file to measure.

    Attributes:
        kind: see CurvePoint.
        name: target size of a planned file, or the other program's name of the type or mix.
        path: the file; it must exist until the next entry is requested.
        predicted_kl: KL divergence that the planner predicted, in nats; None without a prediction.
        target_bytes: see CurvePoint.
    """

    kind: FileKind
    name: str
    path: Path
    predicted_kl: float | None = None
    target_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class AbsentFile:
    """A file that could not be made or read.

    Attributes:
        kind: see CurvePoint.
        name: see CurvePoint; of a quantizer that is not installed, its own name.
        reason: what failed, on one line.
    """

    kind: FileKind
    name: str
    reason: str

    @property
    def text(self) -> str:
        """The reason with the file's kind and name."""
        name = self.kind if self.name == self.kind else f"{self.kind} {self.name}"
        return f"{name}: not measured: {self.reason}"


@dataclass(frozen=True, slots=True)
class CurveQuestions:
    """Questions that all files answer, and how."""

    question_set: QuestionSet
    settings: PromptSettings


@dataclass(frozen=True, slots=True)
class CurveReport(BenchReport):
    """KL divergence against file size.

    Attributes:
        reference: the model in full precision.
        weights: number of its weights.
        data: the file of texts.
        data_sha256: its hash, in hexadecimal.
        passages: number of texts measured.
        positions: number of predictions compared per file.
        points: the files, in order of size.
        comparisons: each planned file with the other files of each kind.
        searched: each file with searched scales with the planned one of its size.
        refined: each refined file with the planned one of its size.
        trimmed: each trimmed file with the planned one of its size.
        verdict: conclusions in words, one per line.
        absent: files that could not be made or read.
        accuracy: scores of the reference over the questions; None if they were not asked.
        questions: origin of the questions; None if they were not asked.
    """

    reference: ModelFile
    weights: int
    data: str
    data_sha256: str
    passages: int
    positions: int
    points: tuple[CurvePoint, ...]
    comparisons: tuple[StockComparison, ...]
    searched: tuple[VariantComparison, ...]
    refined: tuple[VariantComparison, ...]
    trimmed: tuple[VariantComparison, ...]
    verdict: tuple[str, ...]
    absent: tuple[AbsentFile, ...]
    accuracy: Scores | None
    questions: str | None


def run_curve(  # noqa: PLR0913 - options of a measurement, each with a default
    reference: Path,
    entries: Iterable[CurveEntry | AbsentFile],
    *,
    data: Path | None = None,
    tokens: int = 4096,
    questions: CurveQuestions | None = None,
    threads: int | None = None,
    scratch: Path | None = None,
    stage: Stage = lambda name: no_progress,
) -> CurveReport:
    """Measure files against one reference, one after the other, on texts that none of them was calibrated on.

    One model is loaded at a time. The reference's logits are computed once and stored in a temporary file,
    four bytes per position and token of the vocabulary.

    Args:
        reference: the model in full precision, a GGUF file.
        entries: the files, at least one. Each is requested after the one before it was measured, so files can
            be made and deleted on the way. One of another quantizer that cannot be read becomes absent.
        data: texts as JSON lines; by default the built-in held-out texts.
        tokens: maximum number of compared positions.
        questions: questions that the reference and all files answer; by default none.
        threads: compute threads; by default those of Engine.
        scratch: folder for the temporary file; by default the system's.
        stage: makes the progress callback of each file, in tokens.

    Raises:
        ModelFileError: a file is not a GGUF, is damaged, cannot be run by this build, has tokens that the
            reference lacks, or computes logits that are not finite.
        RequestError: a number is out of range, `data` holds no text, or a file answers no question.
        ThirteenError: raised by `entries`.
    """
    check_integer("bench: tokens", tokens, 1)
    data = data or held_out_texts()
    head = report_head()
    with TemporaryFile(dir=scratch) as file:
        with load_for_logits(reference, threads) as model:
            windows = read_windows(model, data, model.context, tokens)
            answers = answer_positions(model, data, windows)
            expected = _store_logits(model, data, windows, answers, file, stage("reading the reference"))
        accuracy = _accuracy(reference, questions, stage("questions to the reference"))
        files = [_measure_or_absent(entry, expected, questions, threads, stage) for entry in entries]
    measured = [file for file in files if isinstance(file, MeasuredFile)]
    absent = tuple(file for file in files if isinstance(file, AbsentFile))
    source = None if questions is None else questions.question_set.source
    return _report(head, data, expected, measured, _Unmeasured(absent, accuracy, source))


def _accuracy(model: Path, questions: CurveQuestions | None, progress: Progress) -> Scores | None:
    if questions is None:
        return None
    report = run_accuracy(
        model,
        questions.question_set,
        questions.settings,
        progress=lambda _, done, total: progress(done, total),
    )
    return report.adapted.scores


@dataclass(frozen=True, slots=True)
class _ReferenceLogits:
    """Logits of the reference.

    Attributes:
        header: header of its file.
        windows: the windows of text.
        passages: passage of each scored position, (positions,).
        answers: whether a position predicts a token of an answer, (positions,).
        questions: whether a position is in a question with its solution, (positions,).
        logits: logits at each scored position, (positions, vocab), memory-mapped.
    """

    header: Header
    windows: Sequence[Window]
    passages: NDArray[np.int64]
    answers: NDArray[np.bool_]
    questions: NDArray[np.bool_]
    logits: Logits


def _store_logits(  # noqa: PLR0913, PLR0917 - what a reference is made of
    model: Engine,
    data: Path,
    windows: Sequence[Window],
    answers: NDArray[np.bool_],
    file: IO[bytes],
    progress: Progress,
) -> _ReferenceLogits:
    header = model.model.header
    for window, prediction in _predictions(model, windows, TokenMap(header, header), progress):
        for at in window.scored:
            file.write(prediction.logits(at).tobytes())  # not written through a map: a full disk raises here
    file.flush()
    passages = scored_passages(windows)
    questions = np.array([passage.question is not None for passage in read_passages(data)])[passages]
    shape = (len(passages), model.model.vocabulary_size)
    logits = np.memmap(file, np.float32, "r", shape=shape)
    return _ReferenceLogits(header, windows, passages, answers, questions, logits)


def _predictions(
    model: Engine, windows: Sequence[Window], tokens: TokenMap, progress: Progress
) -> Iterator[tuple[Window, WindowPrediction]]:
    advance = ProgressCounter(progress, sum(len(window.tokens) for window in windows))
    for window in windows:
        yield window, WindowPrediction(model, window, tokens)
        advance(len(window.tokens))


def _measure_or_absent(
    entry: CurveEntry | AbsentFile,
    reference: _ReferenceLogits,
    questions: CurveQuestions | None,
    threads: int | None,
    stage: Stage,
) -> MeasuredFile | AbsentFile:
    if isinstance(entry, AbsentFile):
        return entry
    name = f"{entry.kind} {entry.name}"
    try:
        measured = _measure(entry, reference, threads, stage(f"reading {name}"))
        accuracy = _accuracy(entry.path, questions, stage(f"questions to {name}"))
    except ThirteenError as error:
        if entry.kind not in QUANTIZERS:
            raise
        return AbsentFile(entry.kind, entry.name, str(error))
    return replace(measured, point=replace(measured.point, accuracy=accuracy))


def _measure(
    entry: CurveEntry, reference: _ReferenceLogits, threads: int | None, progress: Progress
) -> MeasuredFile:
    header = read_header(entry.path, skip_values=("tokenizer.ggml.merges",))
    tokens = TokenMap(reference.header, header)
    with load_for_logits(entry.path, threads, expansion=tokens.expansion) as model:
        expected = iter(reference.logits)
        divergences = np.array(
            [
                position_divergence(
                    log_softmax(next(expected), np.float64),
                    prediction.log_probabilities(position),
                    window.tokens[position + 1],
                    tokens.ids,
                    prediction.nll(position),
                )
                for window, prediction in _predictions(model, reference.windows, tokens, progress)
                for position in window.scored
            ]
        )  # (positions, 5)
    outside = divergences[:, PositionDivergence._fields.index("outside")]
    kl = divergences[:, PositionDivergence._fields.index("kl")]
    point = CurvePoint(
        kind=entry.kind,
        name=entry.name,
        file_bytes=header.file_bytes,
        bits_per_weight=8 * header.file_bytes / header.weights,
        sha256=file_sha256(entry.path),
        divergence=summarize_divergence(divergences, reference.passages),
        vocabulary=measure_coverage(
            tokens, reference.windows, outside, reference.passages, reference.answers
        ),
        predicted_kl=entry.predicted_kl,
        kl_questions=_mean_where(reference.questions, kl, reference.passages),
        kl_texts=_mean_where(~reference.questions, kl, reference.passages),
        target_bytes=entry.target_bytes,
    )
    return MeasuredFile(point, kl)


def _mean_where(chosen: NDArray[np.bool_], kl: FloatArray, passages: NDArray[np.int64]) -> Interval | None:
    return grouped_mean(kl[chosen], passages[chosen]) if chosen.any() else None


@dataclass(frozen=True, slots=True)
class _Unmeasured:
    """What a report has besides the measured files; see CurveReport."""

    absent: tuple[AbsentFile, ...]
    accuracy: Scores | None
    questions: str | None


def _report(
    head: ReportHead,
    data: Path,
    reference: _ReferenceLogits,
    measured: Sequence[MeasuredFile],
    besides: _Unmeasured,
) -> CurveReport:
    measured = sorted(measured, key=lambda file: file.point.file_bytes)
    present = {file.point.kind for file in measured}
    stock = STOCK_KINDS if present.intersection(STOCK_KINDS) else ()
    others: list[OtherKind] = [*stock, *(name for name in QUANTIZERS if name in present)]
    comparisons = tuple(
        compare_at_equal_size(file, measured, kind, reference.passages)
        for file in measured
        if file.point.kind in {"planned", "searched", "refined"}
        for kind in others
    )
    searched = compare_variants(measured, "searched", reference.passages)
    refined = compare_variants(measured, "refined", reference.passages)
    trimmed = compare_variants(measured, "trimmed", reference.passages)
    passages = len(np.unique(reference.passages))
    return CurveReport(
        *head,
        reference=describe_model(ModelSource(reference.header.path)),
        weights=reference.header.weights,
        data=str(data),
        data_sha256=file_sha256(data),
        passages=passages,
        positions=len(reference.passages),
        points=tuple(file.point for file in measured),
        comparisons=comparisons,
        searched=searched,
        refined=refined,
        trimmed=trimmed,
        verdict=(
            *_verdict(comparisons),
            *(_variant_text(one, "searched") for one in searched),
            *(_variant_text(one, "refined") for one in refined),
            *map(_trimmed_text, trimmed),
            *few_texts_warning(passages),
        ),
        absent=besides.absent,
        accuracy=besides.accuracy,
        questions=besides.questions,
    )


def _verdict(comparisons: Sequence[StockComparison]) -> Iterator[str]:
    by_file = [tuple(group) for _, group in groupby(comparisons, key=lambda one: one.planned)]
    for group in by_file:
        yield f"{group[0].planned}: KL divergence {'; '.join(map(_ratio_text, group))}"
    if by_file:
        ratios = [[one.ratio.estimate for one in group if one.ratio] for group in by_file]
        reached = sum(max(file_ratios) <= KL_RATIO_GOAL for file_ratios in ratios if file_ratios)
        yield (
            f"{reached} of {len(by_file)} planned files have at most {KL_RATIO_GOAL} times the KL divergence "
            "of the best other files of their size"
        )


def _variant_text(comparison: VariantComparison, kind: Variant) -> str:
    return f"{comparison.name}, {kind}: KL divergence {comparison.ratio.text(2)} times that of the plain one"


def _trimmed_text(comparison: VariantComparison) -> str:
    return (
        f"{comparison.name}, smaller vocabulary: KL divergence over the kept tokens "
        f"{comparison.ratio.text(2)} times that of the file with all tokens"
    )


def _ratio_text(comparison: StockComparison) -> str:
    if comparison.ratio is None:
        return f"not compared with {comparison.kind} files: none is as small"
    return f"{comparison.ratio.text(2)} times that of {comparison.kind} {comparison.best}"


def curve_table(report: CurveReport) -> Group:
    """Table of all files by size, and table of planned files against the others; conclusions below."""
    return Group(_files_table(report), "", _comparisons_table(report))


def _files_table(report: CurveReport) -> Table:
    table = Table(title="KL divergence from the reference by file size")
    table.add_column("kind")
    table.add_column("file")
    titles = ("MB", "bits per weight", "KL, nats (95 %)", "of questions", "of texts", "predicted")
    answers = ("answers right, %",) if report.accuracy else ()
    for title in (*titles, "same top token, %", *answers):
        table.add_column(title, justify="right")
    for point in report.points:
        table.add_row(
            point.kind,
            Text(point.name),
            f"{point.file_bytes / 1e6:.2f}",
            f"{point.bits_per_weight:.2f}",
            point.divergence.kl_mean.text(4),
            *("" if kl is None else f"{kl.estimate:.4f}" for kl in (point.kl_questions, point.kl_texts)),
            "" if point.predicted_kl is None else f"{point.predicted_kl:.4f}",
            point.divergence.same_top.text(1, 100),
            *_accuracy_cells(point.accuracy),
            style="bold" if point.kind in PLANNED_KINDS else None,
        )
    if report.accuracy:
        table.add_row("reference", *[""] * len(titles), "", "", *_accuracy_cells(report.accuracy))
    for absent in report.absent:
        table.add_row(absent.kind, Text(absent.name), Text("not measured"))
    return table


def _accuracy_cells(accuracy: Scores | None) -> tuple[str, ...]:
    return () if accuracy is None else (accuracy.accuracy.text(1, 100),)


def _comparisons_table(report: CurveReport) -> Table:
    title = "KL divergence of planned files / of other files at equal size"
    columns = ("others", "best of them", "planned / it (95 %)", "planned / their curve")
    table = report_table(title, _caption(report), "planned", *columns)
    for one in report.comparisons:
        table.add_row(Text(one.planned), one.kind, *_cells(one))
    return table


def _cells(comparison: StockComparison) -> tuple[str, str, str]:
    best, best_bytes = comparison.best, comparison.best_bytes
    return (
        "none" if best is None or best_bytes is None else f"{best}, {best_bytes / 1e6:.2f} MB",
        "" if comparison.ratio is None else comparison.ratio.text(3),
        "" if comparison.curve_ratio is None else f"{comparison.curve_ratio:.3f}",
    )


def _caption(report: CurveReport) -> str:
    return "\n".join(
        (
            *report.verdict,
            *(absent.text for absent in report.absent),
            f"{report.positions:,} positions of {report.passages} texts in {Path(report.data).name}; "
            f"reference: {report.reference.bits_per_weight:.2f} bits per weight",
            f"best file: of at most {SIZE_TOLERANCE} times the bytes that the planned file may have; "
            "curve: interpolated between the best of the others at exactly these bytes",
            *([] if report.questions is None else [f"answers: {_questions_text(report)}"]),
            f"{report.machine.cpu}, llama-cpp-python {report.build.llama_cpp_python}",
        )
    )


def _questions_text(report: CurveReport) -> str:
    count = 0 if report.accuracy is None else report.accuracy.questions
    return f"{count} questions of {report.questions}"
