"""A planned file set against the stock files of its size: the best one, and the curve through them all."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ...stats.bootstrap import bootstrap_interval, sum_by_passage
from ...stats.interval import FloatArray, Interval
from ..fidelity.kl_divergence import Divergence
from ..peers.llama_quantize import StockKind

FileKind = Literal["planned"] | StockKind

STOCK_KINDS: tuple[StockKind, ...] = ("uniform", "mix")
SIZE_TOLERANCE = 1.005  # times a file's bytes: what is no larger counts as no larger, since metadata differ
_LEAST = 1e-30  # nats: what diverges in nothing has a logarithm still, and can be divided by


@dataclass(frozen=True, slots=True)
class CurvePoint:
    """A file that was measured.

    Attributes:
        kind: planned, or a stock file of one of two kinds.
        name: the size that was asked for, or what llama.cpp calls the type or the mix.
        file_bytes: its size.
        bits_per_weight: 8 * file_bytes for each weight, metadata included, as a size is asked for in `bpw`.
        sha256: of the file, in hexadecimal.
        divergence: from the reference.
        predicted_kl: KL divergence that it was planned to have, in nats; None where nothing was predicted.
    """

    kind: FileKind
    name: str
    file_bytes: int
    bits_per_weight: float
    sha256: str
    divergence: Divergence
    predicted_kl: float | None

    @property
    def kl(self) -> float:
        """Mean KL divergence from the reference, in nats."""
        return self.divergence.kl_mean.estimate


@dataclass(frozen=True, slots=True)
class MeasuredFile:
    """A file with its KL divergence at every position, (positions,), in nats."""

    point: CurvePoint
    kl: FloatArray


@dataclass(frozen=True, slots=True)
class StockComparison:
    """A planned file beside the stock files of one kind, at equal bytes.

    Attributes:
        planned: its name.
        kind: of the stock files.
        best: the one of least KL divergence among those of at most EQUAL times its bytes; None if none is.
        best_bytes: the size of that; None likewise.
        ratio: KL divergence of the planned file / of the best one, paired by position; None likewise.
        curve_kl: KL divergence of the curve through the stock files at exactly the planned file's bytes, see
            kl_at_size(); None if it is smaller than they all.
        curve_ratio: KL divergence of the planned file / of the curve; None likewise.
    """

    planned: str
    kind: StockKind
    best: str | None
    best_bytes: int | None
    ratio: Interval | None
    curve_kl: float | None
    curve_ratio: float | None


def compare_at_equal_size(
    planned: MeasuredFile, stock: Sequence[MeasuredFile], kind: StockKind, passages: NDArray[np.int64]
) -> StockComparison:
    """Set a planned file against the stock files of a kind.

    Args:
        planned: the file.
        stock: the stock files of all kinds.
        kind: those that count.
        passages: the passage that each position is from, (positions,).
    """
    ours = planned.point
    rivals = [one for one in stock if one.point.kind == kind]
    fitting = [one for one in rivals if one.point.file_bytes <= SIZE_TOLERANCE * ours.file_bytes]
    best = min(fitting, key=lambda one: one.point.kl, default=None)
    curve = kl_at_size(ours.file_bytes, [(one.point.file_bytes, one.point.kl) for one in rivals])
    return StockComparison(
        planned=ours.name,
        kind=kind,
        best=best.point.name if best else None,
        best_bytes=best.point.file_bytes if best else None,
        ratio=_ratio(planned.kl, best.kl, passages) if best else None,
        curve_kl=curve,
        curve_ratio=None if curve is None else max(ours.kl, _LEAST) / max(curve, _LEAST),
    )


def pareto_front(files: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Of files by size and KL divergence, those that none of at most their size equals; smallest first."""
    kept: list[tuple[float, float]] = []
    for size, kl in sorted(files):
        if not kept or kl < kept[-1][1]:
            kept.append((size, kl))
    return kept


def kl_at_size(file_bytes: int, files: Sequence[tuple[float, float]]) -> float | None:
    """The KL divergence of the curve through the best files, at a size.

    Between neighbours on the envelope the logarithm of KL divergence goes in a straight line over bytes, and
    beyond the last one it stays. On the line there is no such file: it is what one might come to.

    Args:
        file_bytes: the size.
        files: of each file, size and KL divergence in nats.

    Returns:
        Nats; None if the size is smaller than all files.
    """
    kept = pareto_front(files)
    if not kept or file_bytes < kept[0][0]:
        return None
    sizes, divergences = np.array(kept, np.float64).T  # (files,) each
    return float(np.exp(np.interp(file_bytes, sizes, np.log(np.maximum(divergences, _LEAST)))))


def _ratio(ours: FloatArray, theirs: FloatArray, passages: NDArray[np.int64]) -> Interval:
    both = sum_by_passage(np.stack((ours, theirs), axis=1), passages)  # (passages, 2)
    return bootstrap_interval(
        both, lambda sums: np.maximum(sums[..., 0], _LEAST) / np.maximum(sums[..., 1], _LEAST)
    )
