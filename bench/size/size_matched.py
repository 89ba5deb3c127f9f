"""Comparison of a planned file with the other files of its size: the best one, and the curve through them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from ...stats.bootstrap import bootstrap_interval, sum_by_passage
from ...stats.interval import FloatArray, Interval
from ..accuracy.accuracy_metrics import Scores
from ..fidelity.kl_divergence import Divergence
from ..fidelity.vocabulary_coverage import VocabularyCoverage
from ..peers.llama_quantize import StockKind
from .quantizers import QuantizerName

OtherKind = StockKind | QuantizerName
Variant = Literal["searched", "refined", "trimmed"]
FileKind = Literal["planned"] | Variant | OtherKind

PLANNED_KINDS: tuple[FileKind, ...] = ("planned", *get_args(Variant))
STOCK_KINDS: tuple[StockKind, ...] = ("uniform", "mix")
SIZE_TOLERANCE = (
    1.005  # times the bytes of a planned file's size: metadata differ, so this still counts as equal size
)
_KL_MIN = 1e-30  # nats: a KL divergence of 0 still has a logarithm and can be a divisor


@dataclass(frozen=True, slots=True)
class CurvePoint:
    """A measured file.

    Attributes:
        kind: "planned", "searched" if its scales were searched, "refined" if they were tuned, "trimmed" if it
            has a smaller vocabulary, the kind of the stock file, or the name of another quantizer.
        name: target size of a planned file, or the other program's name of the type or mix.
        file_bytes: size of the file.
        bits_per_weight: 8 * file_bytes / weights, metadata included, as a target size in `bpw` counts them.
        sha256: hash of the file, in hexadecimal.
        divergence: divergence from the reference.
        predicted_kl: KL divergence that the planner predicted, in nats; None without a prediction.
        vocabulary: what the file's vocabulary covers; None if it has all tokens of the reference.
        kl_questions: mean KL divergence over the questions with solutions, in nats; None without any.
        kl_texts: mean KL divergence over the other texts, in nats; None without any.
        accuracy: scores over the questions; None if it was not measured.
        target_bytes: size that the file was planned for, which it may be well below; None for other files.
    """

    kind: FileKind
    name: str
    file_bytes: int
    bits_per_weight: float
    sha256: str
    divergence: Divergence
    predicted_kl: float | None
    vocabulary: VocabularyCoverage | None = None
    kl_questions: Interval | None = None
    kl_texts: Interval | None = None
    accuracy: Scores | None = None
    target_bytes: int | None = None

    @property
    def budget_bytes(self) -> int:
        """The bytes that other files of its size may have: those that it may have itself."""
        return max(self.file_bytes, self.target_bytes or 0)

    @property
    def kl(self) -> float:
        """Mean KL divergence from the reference, in nats."""
        return self.divergence.kl_mean.estimate


@dataclass(frozen=True, slots=True)
class MeasuredFile:
    """A measured file with its KL divergence at each position in nats, (positions,)."""

    point: CurvePoint
    kl: FloatArray


@dataclass(frozen=True, slots=True)
class StockComparison:
    """A planned file or a variant against the stock files of one kind, or those of another quantizer.

    Attributes:
        planned: name of the file.
        kind: kind of the other files.
        best: the other file with the lowest KL divergence among those of at most SIZE_TOLERANCE times the
            bytes that the planned file may have; None if all are larger.
        best_bytes: its size; None if all are larger.
        ratio: KL divergence of the planned file / of the best one, paired by position; None if all are
            larger.
        curve_kl: KL divergence of the curve through the other files at exactly these bytes, see
            kl_at_size(); None if all are larger.
        curve_ratio: KL divergence of the planned file / of the curve; None if all are larger.
    """

    planned: str
    kind: OtherKind
    best: str | None
    best_bytes: int | None
    ratio: Interval | None
    curve_kl: float | None
    curve_ratio: float | None


@dataclass(frozen=True, slots=True)
class VariantComparison:
    """A searched, refined or trimmed file against the planned one of the same size.

    Attributes:
        name: target size of both.
        ratio: KL divergence of the variant / of the planned file, paired by position; that of a trimmed file
            is over the kept tokens.
    """

    name: str
    ratio: Interval


def compare_variants(
    files: Sequence[MeasuredFile], kind: Variant, passages: NDArray[np.int64]
) -> tuple[VariantComparison, ...]:
    """Compare each file of one variant with the planned one of the same size, if there is one.

    Args:
        files: files of all kinds.
        kind: the variant.
        passages: passage of each position, (positions,).
    """
    planned = {file.point.name: file for file in files if file.point.kind == "planned"}
    return tuple(
        VariantComparison(file.point.name, _ratio(file.kl, planned[file.point.name].kl, passages))
        for file in files
        if file.point.kind == kind and file.point.name in planned
    )


def compare_at_equal_size(
    planned: MeasuredFile, files: Sequence[MeasuredFile], kind: OtherKind, passages: NDArray[np.int64]
) -> StockComparison:
    """Compare a planned file with the other files of one kind.

    Args:
        planned: the planned file.
        files: files of all kinds.
        kind: kind of the files to compare with.
        passages: passage of each position, (positions,).
    """
    ours = planned.point
    stock = [file for file in files if file.point.kind == kind]
    fitting = [file for file in stock if file.point.file_bytes <= SIZE_TOLERANCE * ours.budget_bytes]
    best = min(fitting, key=lambda file: file.point.kl, default=None)
    curve_kl = kl_at_size(ours.budget_bytes, [(file.point.file_bytes, file.point.kl) for file in stock])
    return StockComparison(
        planned=ours.name if ours.kind == "planned" else f"{ours.name}, {ours.kind}",
        kind=kind,
        best=best.point.name if best else None,
        best_bytes=best.point.file_bytes if best else None,
        ratio=_ratio(planned.kl, best.kl, passages) if best else None,
        curve_kl=curve_kl,
        curve_ratio=None if curve_kl is None else max(ours.kl, _KL_MIN) / max(curve_kl, _KL_MIN),
    )


def pareto_front(files: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Keep the (size, KL divergence) pairs that no file of at most their size matches; smallest first."""
    front: list[tuple[float, float]] = []
    for size, kl in sorted(files):
        if not front or kl < front[-1][1]:
            front.append((size, kl))
    return front


def kl_at_size(file_bytes: int, files: Sequence[tuple[float, float]]) -> float | None:
    """KL divergence at a size on the curve through the best files.

    Between neighbours on the Pareto front, log KL divergence is linear in bytes; beyond the largest file it
    is constant. No file exists on the line: it is what a file of that size could reach.

    Args:
        file_bytes: the size.
        files: size and KL divergence in nats of each file.

    Returns:
        Nats; None if all files are larger.
    """
    front = pareto_front(files)
    if not front or file_bytes < front[0][0]:
        return None
    sizes, divergences = np.array(front, np.float64).T  # (files,) each
    return float(np.exp(np.interp(file_bytes, sizes, np.log(np.maximum(divergences, _KL_MIN)))))


def _ratio(ours: FloatArray, theirs: FloatArray, passages: NDArray[np.int64]) -> Interval:
    both = sum_by_passage(np.stack((ours, theirs), axis=1), passages)  # (passages, 2)
    return bootstrap_interval(
        both, lambda sums: np.maximum(sums[..., 0], _KL_MIN) / np.maximum(sums[..., 1], _KL_MIN)
    )
