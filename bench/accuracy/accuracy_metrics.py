"""Metrics of an evaluation: scores of one model, and the paired difference of two."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ...stats.bootstrap import grouped_mean, sum_by_passage
from ...stats.interval import FloatArray, Interval
from ...stats.mcnemar import mcnemar
from ...stats.paired_difference import paired_difference
from ...stats.wilson import wilson_interval
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
        single: mean accuracy of single samples, where several were voted on; None otherwise.
        tokens: mean tokens of a sample.
        first_error: error of the first question that failed; None if none did.
    """

    questions: int
    correct: int
    wrong: int
    truncated: int
    unparsed: int
    errors: int
    accuracy: Interval
    single: Interval | None
    tokens: float
    first_error: str | None


@dataclass(frozen=True, slots=True)
class PairedScores:
    """Two models on the same questions, without those that failed on either.

    Attributes:
        questions: number of questions.
        groups: number of independent groups of questions.
        both: questions that both answered correctly.
        gained: questions that only the adapted model answered correctly.
        lost: questions that only the base answered correctly.
        neither: questions that neither answered correctly.
        difference: accuracy of adapted less base, with its interval: Newcombe's if the questions are
            independent, otherwise a bootstrap interval over the groups.
        p_value: p-value of McNemar's exact test, which takes all questions as independent.
    """

    questions: int
    groups: int
    both: int
    gained: int
    lost: int
    neither: int
    difference: Interval
    p_value: float

    @property
    def independent(self) -> bool:
        """Whether every question is a group of its own."""
        return self.groups == self.questions


def score(records: Sequence[QuestionRecord], groups: Sequence[str]) -> Scores:
    """Score a model.

    Args:
        records: records of all questions, in order; at least one is not an error.
        groups: group of each question; see Question.
    """
    counts = Counter(record.outcome for record in records)
    answered = [record for record in records if record.outcome is not Outcome.ERROR]
    groups = [groups[record.number] for record in answered]
    correct = np.array([float(record.outcome is Outcome.CORRECT) for record in answered])  # (answered,)
    independent = len(set(groups)) == len(groups)
    return Scores(
        questions=len(records),
        correct=counts[Outcome.CORRECT],
        wrong=counts[Outcome.WRONG],
        truncated=counts[Outcome.TRUNCATED],
        unparsed=counts[Outcome.UNPARSED],
        errors=counts[Outcome.ERROR],
        accuracy=(
            wilson_interval(counts[Outcome.CORRECT], len(answered))
            if independent
            else grouped_mean(correct, np.array(groups))
        ),
        single=_single_accuracy(answered, groups),
        tokens=float(np.mean([sample.tokens for record in answered for sample in record.samples])),
        first_error=next((record.error for record in records if record.error is not None), None),
    )


def _single_accuracy(answered: Sequence[QuestionRecord], groups: Sequence[str]) -> Interval | None:
    if all(len(record.samples) == 1 for record in answered):
        return None
    shares = [
        np.mean([sample.outcome is Outcome.CORRECT for sample in record.samples]) for record in answered
    ]
    return grouped_mean(np.array(shares, np.float64), np.array(groups))


def pair_scores(
    base: Sequence[QuestionRecord], adapted: Sequence[QuestionRecord], groups: Sequence[str]
) -> PairedScores | None:
    """Compare two models question by question; None if every question failed on one of them."""
    correct, labels = _paired_outcomes(base, adapted, groups)
    if not len(correct):
        return None
    gained, lost = int((~correct[:, 0] & correct[:, 1]).sum()), int((correct[:, 0] & ~correct[:, 1]).sum())
    both, neither = int(correct.all(1).sum()), int((~correct.any(1)).sum())
    count = len(np.unique(labels))
    if count == len(correct):
        difference = paired_difference(both, gained, lost, neither)
    else:
        difference = grouped_mean(_changes(correct), labels)
    return PairedScores(
        questions=len(correct),
        groups=count,
        both=both,
        gained=gained,
        lost=lost,
        neither=neither,
        difference=difference,
        p_value=mcnemar(gained, lost),
    )


def group_p_value(
    base: Sequence[QuestionRecord], adapted: Sequence[QuestionRecord], groups: Sequence[str]
) -> float:
    """The p-value of the exact sign test over the groups, each with its net change in right answers.

    It holds for any number of groups; a bootstrap interval over a few is too narrow. Where every question is
    a group of its own, it is McNemar's test.
    """
    correct, labels = _paired_outcomes(base, adapted, groups)
    net = sum_by_passage(_changes(correct), labels)
    return mcnemar(int((net > 0).sum()), int((net < 0).sum()))


def _paired_outcomes(
    base: Sequence[QuestionRecord], adapted: Sequence[QuestionRecord], groups: Sequence[str]
) -> tuple[NDArray[np.bool_], NDArray[np.str_]]:
    """Whether each model is right, (pairs, 2), and the group, of each question that failed on neither."""
    pairs = [
        (one, other)
        for one, other in zip(base, adapted, strict=True)
        if Outcome.ERROR not in (one.outcome, other.outcome)
    ]
    correct = [[record.outcome is Outcome.CORRECT for record in pair] for pair in pairs]
    labels = [groups[one.number] for one, _ in pairs]
    return np.array(correct, bool).reshape(-1, 2), np.array(labels, str)


def _changes(correct: NDArray[np.bool_]) -> FloatArray:
    return correct[:, 1].astype(np.float64) - correct[:, 0]
