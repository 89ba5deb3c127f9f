"""Calibration of confidences: how often answers of a given confidence are right."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ...stats.interval import Interval
from ...stats.wilson import wilson_interval
from .eval_log import Outcome, QuestionRecord

_BINS = 10
_MINIMA = (0.0, 0.5, 0.6, 0.7, 0.8, 0.9)


@dataclass(frozen=True, slots=True)
class GivenAnswers:
    """Answers that are given with a minimum confidence.

    Attributes:
        min_confidence: the minimum.
        given: their share of all answers.
        right: share of right ones among them, with its interval; None if there are none.
    """

    min_confidence: float
    given: float
    right: Interval | None


@dataclass(frozen=True, slots=True)
class Calibration:
    """How far confidences can be relied on.

    Attributes:
        error: expected calibration error: mean distance of confidence and share of right answers, over ten
            bins of confidence (Guo et al., 2017, arXiv 1706.04599).
        curve: the answers given, by minimum confidence.
    """

    error: float
    curve: tuple[GivenAnswers, ...]


def calibrate(records: Sequence[QuestionRecord]) -> Calibration:
    """Compare the confidences of answers with their outcomes.

    Args:
        records: at least one, none of an error.
    """
    confidences = np.array([record.confidence for record in records])  # (questions,)
    right = np.array([record.outcome is Outcome.CORRECT for record in records])  # (questions,)
    bins = np.minimum((confidences * _BINS).astype(int), _BINS - 1)
    gaps = [abs(np.sum(confidences[bins == at]) - np.sum(right[bins == at])) for at in range(_BINS)]
    return Calibration(
        float(np.sum(gaps) / len(records)), tuple(_given(confidences, right, at) for at in _MINIMA)
    )


def _given(confidences: np.ndarray, right: np.ndarray, minimum: float) -> GivenAnswers:
    given = confidences >= minimum
    count = int(np.sum(given))
    interval = wilson_interval(int(np.sum(right & given)), count) if count else None
    return GivenAnswers(minimum, count / len(given), interval)
