"""What the records of a run come to, alone and beside those of another."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ...stats.bootstrap import ratio_interval, sum_by_passage
from ...stats.interval import FloatArray, Interval
from ...stats.mcnemar import mcnemar
from ...stats.wilson import wilson_interval
from .eval_log import Outcome, QuestionRecord


@dataclass(frozen=True, slots=True)
class Scores:
    """One model's answers.

    Attributes:
        questions: how many were asked.
        correct: how many answers are right.
        wrong: how many are a number that is not.
        truncated: how many were cut short.
        unparsed: how many have no number.
        errors: questions that could not be asked or computed. They are in none of the figures below.
        accuracy: part of the questions that got the right answer, with its interval.
        single: the same for a single answer, where several were taken: the mean over all; else None.
        tokens: mean length of an answer.
        first_error: what went wrong first; None if nothing did.
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
    """Two models' answers to the same questions, without those that ended in an error on either side.

    Attributes:
        questions: how many there are.
        groups: how many of them are independent of one another.
        both: how many both got right.
        gained: how many only the adapted model got right.
        lost: how many only the base got right.
        neither: how many neither got right.
        difference: of the accuracies, adapted - base, with the bootstrap's interval over the groups.
        p_value: of McNemar's exact test, which takes all questions for independent.
    """

    questions: int
    groups: int
    both: int
    gained: int
    lost: int
    neither: int
    difference: Interval
    p_value: float


def score(records: Sequence[QuestionRecord], groups: Sequence[str]) -> Scores:
    """Count what became of the questions.

    Args:
        records: of all questions, in order; of at least one not an error.
        groups: each question's.
    """
    counts = Counter(record.outcome for record in records)
    known = [record for record in records if record.outcome is not Outcome.ERROR]
    groups = [groups[record.number] for record in known]
    right = np.array([float(record.outcome is Outcome.CORRECT) for record in known])  # (known,)
    alone = len(set(groups)) == len(groups)
    return Scores(
        questions=len(records),
        correct=counts[Outcome.CORRECT],
        wrong=counts[Outcome.WRONG],
        truncated=counts[Outcome.TRUNCATED],
        unparsed=counts[Outcome.UNPARSED],
        errors=counts[Outcome.ERROR],
        accuracy=wilson_interval(counts[Outcome.CORRECT], len(known)) if alone else _mean(right, groups),
        single=_single(known, groups),
        tokens=float(np.mean([sample.tokens for record in known for sample in record.samples])),
        first_error=next((record.error for record in records if record.error is not None), None),
    )


def _single(known: Sequence[QuestionRecord], groups: Sequence[str]) -> Interval | None:
    if all(len(record.samples) == 1 for record in known):
        return None
    shares = [np.mean([sample.outcome is Outcome.CORRECT for sample in record.samples]) for record in known]
    return _mean(np.array(shares, np.float64), groups)


def pair_scores(
    base: Sequence[QuestionRecord], adapted: Sequence[QuestionRecord], groups: Sequence[str]
) -> PairedScores | None:
    """Set two runs of the same questions side by side; None if every one ended in an error on either side."""
    pairs = [
        (one, other)
        for one, other in zip(base, adapted, strict=True)
        if Outcome.ERROR not in (one.outcome, other.outcome)
    ]
    if not pairs:
        return None
    right = np.array([[side.outcome is Outcome.CORRECT for side in both] for both in pairs])  # (pairs, 2)
    gained, lost = int((~right[:, 0] & right[:, 1]).sum()), int((right[:, 0] & ~right[:, 1]).sum())
    changes = right[:, 1].astype(np.float64) - right[:, 0]  # (pairs,)
    of_pairs = [groups[one.number] for one, _ in pairs]
    return PairedScores(
        questions=len(pairs),
        groups=len(set(of_pairs)),
        both=int(right.all(1).sum()),
        gained=gained,
        lost=lost,
        neither=int((~right.any(1)).sum()),
        difference=_mean(changes, of_pairs),
        p_value=mcnemar(gained, lost),
    )


def _mean(values: FloatArray, groups: Sequence[str]) -> Interval:
    """The mean over questions, and its interval over groups; values are (questions,)."""
    _, numbers = np.unique(groups, return_inverse=True)
    sums = sum_by_passage(
        np.stack([values, np.ones_like(values)], 1), numbers.astype(np.int64)
    )  # (groups, 2)
    return ratio_interval(sums)
