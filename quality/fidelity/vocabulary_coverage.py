"""Coverage of held-out texts and of the reference's predictions by a trimmed file's vocabulary."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ...stats.arrays import Doubles
from ...stats.bootstrap import grouped_mean
from ...stats.interval import Interval
from .text_logits import Window
from .token_map import TokenMap


@dataclass(frozen=True, slots=True)
class OutsideProbability:
    """Probability that the reference gives to tokens that the file dropped.

    Attributes:
        positions: number of positions.
        mean: mean over the positions.
        median: median over the positions.
    """

    positions: int
    mean: Interval
    median: float


@dataclass(frozen=True, slots=True)
class VocabularyCoverage:
    """Coverage of a trimmed vocabulary on held-out texts.

    Attributes:
        kept: number of tokens in the file.
        of: number of tokens in the reference.
        unchanged: share of the scored tokens of the texts that are kept.
        outside: probability outside.
    """

    kept: int
    of: int
    unchanged: Interval
    outside: OutsideProbability


def measure_coverage(
    tokens: TokenMap, windows: Sequence[Window], outside: Doubles, passages: NDArray[np.int64]
) -> VocabularyCoverage | None:
    """Summarize what a vocabulary covers; None if the file keeps all tokens.

    Args:
        tokens: the file's tokens.
        windows: the texts, in the reference's tokens.
        outside: probability outside at each scored position, (positions,).
        passages: passage of each position, (positions,).
    """
    if tokens.complete:
        return None
    kept = [float(tokens.keeps(window.tokens[at + 1])) for window in windows for at in window.scored]
    return VocabularyCoverage(
        kept=len(tokens.ids),
        of=tokens.of,
        unchanged=grouped_mean(np.array(kept), passages),
        outside=OutsideProbability(len(outside), grouped_mean(outside, passages), float(np.median(outside))),
    )


def coverage_rows(coverage: VocabularyCoverage) -> Iterator[tuple[str, str]]:
    """Name and text of each measured number."""
    yield "tokens kept", f"{coverage.kept:,} of {coverage.of:,}"
    yield "tokens of the texts unchanged, %", coverage.unchanged.text(2, 100)
    yield "probability outside, mean, %", coverage.outside.mean.text(3, 100)
    yield "probability outside, median, %", f"{100 * coverage.outside.median:.4f}"
