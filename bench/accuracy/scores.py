"""Scores of one model on a question set, and of two models in pairs."""

from bisect import bisect_left
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil

import numpy as np

from ...stats.bootstrap import ratio_interval
from ...stats.interval import Interval
from ...stats.proportions import count_pairs, mcnemar, paired_difference, wilson_interval
from .eval_log import Outcome, QuestionRecord


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
        tokens: mean tokens a question, of all samples.
        first_error: error of the first question that failed; None if none did.
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
        tokens_ratio: tokens a question, adapted/base, with its bootstrap interval.
    """

    questions: int
    both: int
    gained: int
    lost: int
    neither: int
    difference: Interval
    p_value: float
    tokens_ratio: Interval

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
        tokens=float(np.mean([record.tokens for record in answered])),
        first_error=next((record.error for record in records if record.error is not None), None),
    )


def pair_scores(base: Sequence[QuestionRecord], adapted: Sequence[QuestionRecord]) -> PairedScores | None:
    """Compare two models on what both were asked; None if every question failed on one of them."""
    others = {other.number: other for other in adapted}
    pairs = [
        (one, other)
        for one in base
        if (other := others.get(one.number)) and Outcome.ERROR not in {one.outcome, other.outcome}
    ]
    if not pairs:
        return None
    right = ((one.outcome is Outcome.CORRECT, other.outcome is Outcome.CORRECT) for one, other in pairs)
    both, gained, lost, neither = count_pairs(right)
    return PairedScores(
        questions=len(pairs),
        both=both,
        gained=gained,
        lost=lost,
        neither=neither,
        difference=paired_difference(both, gained, lost, neither),
        p_value=mcnemar(gained, lost),
        tokens_ratio=ratio_interval(np.array([(other.tokens, one.tokens) for one, other in pairs], float)),
    )
