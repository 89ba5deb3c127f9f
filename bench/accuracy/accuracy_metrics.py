"""Metrics of an evaluation: scores of one model, how far its confidences hold, and two models in pairs."""

from bisect import bisect_left
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil

import numpy as np

from ...stats.interval import Interval
from ...stats.proportions import count_pairs, mcnemar, paired_difference, wilson_interval
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


def calibrate(records: Sequence[QuestionRecord]) -> Calibration | None:
    """Compare the confidences of answers with their outcomes; None if they are not known.

    Args:
        records: at least one, none of an error. One without a value counts as 0.
    """
    if all(record.confidence is None for record in records):
        return None
    confidences = np.array([record.confidence or 0 for record in records])  # (questions,)
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


@dataclass(frozen=True, slots=True)
class Scores:
    """Scores of one model.

    Attributes:
        questions: number of questions.
        correct: questions with the right answer.
        wrong: questions with another number.
        truncated: questions whose answer was truncated.
        unparsed: questions whose answer has no number.
        errors: questions that failed. The figures below exclude them.
        accuracy: share of right answers, with its interval.
        tokens: mean tokens of a sample.
        first_error: error of the first question that failed; None if none did.
        calibration: how far the confidences can be relied on; None if they are not known.
    """

    questions: int
    correct: int
    wrong: int
    truncated: int
    unparsed: int
    errors: int
    accuracy: Interval
    tokens: float
    first_error: str | None
    calibration: Calibration | None = None


@dataclass(frozen=True, slots=True)
class PairedScores:
    """Two models on the same questions, without those that failed on either.

    Attributes:
        questions: number of questions.
        both: questions that both answered correctly.
        gained: questions that only the adapted model answered correctly.
        lost: questions that only the base answered correctly.
        neither: questions that neither answered correctly.
        difference: accuracy of adapted less base, with Newcombe's interval.
        p_value: p-value of McNemar's exact test.
    """

    questions: int
    both: int
    gained: int
    lost: int
    neither: int
    difference: Interval
    p_value: float

    @property
    def differs(self) -> bool:
        """Whether the interval of the difference excludes 0."""
        return not self.difference.low <= 0 <= self.difference.high

    def more_questions(self, half_width: float) -> int:
        """Estimate how many more questions with such outcomes would narrow the interval so far; 0 if none."""

        def is_narrow(questions: int) -> bool:
            counts = (self.both, self.gained, self.lost, self.neither)
            interval = paired_difference(*(count * questions / self.questions for count in counts))
            return interval.high - interval.low <= 2 * half_width

        enough = ceil(1 / half_width**2)  # times about four, the most that any outcomes need
        return bisect_left(range(self.questions, self.questions + 4 * enough), True, key=is_narrow)


def score(records: Sequence[QuestionRecord]) -> Scores:
    """Score a model from the records of all questions, of which at least one is not an error."""
    counts = Counter(record.outcome for record in records)
    answered = [record for record in records if record.outcome is not Outcome.ERROR]
    return Scores(
        questions=len(records),
        correct=counts[Outcome.CORRECT],
        wrong=counts[Outcome.WRONG],
        truncated=counts[Outcome.TRUNCATED],
        unparsed=counts[Outcome.UNPARSED],
        errors=counts[Outcome.ERROR],
        accuracy=wilson_interval(counts[Outcome.CORRECT], len(answered)),
        tokens=float(np.mean([sample.tokens for record in answered for sample in record.samples])),
        calibration=calibrate(answered),
        first_error=next((record.error for record in records if record.error is not None), None),
    )


def pair_scores(base: Sequence[QuestionRecord], adapted: Sequence[QuestionRecord]) -> PairedScores | None:
    """Compare two models on what both were asked; None if every question failed on one of them."""
    others = {other.number: other for other in adapted}
    both, gained, lost, neither = counts = count_pairs(
        (one.outcome is Outcome.CORRECT, other.outcome is Outcome.CORRECT)
        for one in base
        if (other := others.get(one.number)) and Outcome.ERROR not in {one.outcome, other.outcome}
    )
    if not any(counts):
        return None
    return PairedScores(
        questions=sum(counts),
        both=both,
        gained=gained,
        lost=lost,
        neither=neither,
        difference=paired_difference(*counts),
        p_value=mcnemar(gained, lost),
    )
