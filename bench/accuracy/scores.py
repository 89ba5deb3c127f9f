"""Graded answers to questions: scores of one model, and of two models in pairs."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated

import numpy as np
from pydantic import Field

from ...stats.intervals import (
    Interval,
    count_pairs,
    mcnemar,
    paired_difference,
    ratio_interval,
    wilson_interval,
)


class Outcome(StrEnum):
    """Outcome of a question or of a sample."""

    CORRECT = "correct"
    WRONG = "wrong"
    TRUNCATED = "truncated"  # max_tokens were used up before the answer ended
    UNPARSED = "unparsed"  # a complete answer without a number
    ERROR = "error"  # the question was rejected, as one that does not fit the context: there is no answer


@dataclass(frozen=True, slots=True)
class Sample:
    """One answer to a question; `verified` if its equations hold and yield the value."""

    value: str | None
    outcome: Outcome
    verified: bool
    tokens: Annotated[int, Field(ge=1, lt=1 << 31)]  # the end-of-generation token counts
    text: str


@dataclass(frozen=True, slots=True)
class QuestionRecord:
    """Result of a question: `value` is of the only sample, or of the majority vote; see Answer."""

    number: int  # in the set, from 0
    expected: str
    value: str | None
    outcome: Outcome
    samples: tuple[Sample, ...]  # in the order of their seeds; empty after an error
    error: str | None = None
    confidence: float | None = None

    @property
    def tokens(self) -> int:
        """Tokens of all samples."""
        return sum(sample.tokens for sample in self.samples)


@dataclass(frozen=True, slots=True)
class Scores:
    """Scores of one model: questions by outcome; accuracy and mean tokens a question exclude errors."""

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

    `gained` are the questions that only the adapted model answered correctly, `lost` those of the base
    alone. The difference has Newcombe's interval, the p-value is McNemar's, and the ratio is of tokens a
    question.
    """

    questions: int
    both: int
    gained: int
    lost: int
    neither: int
    difference: Interval
    p_value: float
    tokens_ratio: Interval


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
    counts = _, gained, lost, _ = count_pairs(right)
    return PairedScores(
        len(pairs),
        *counts,
        difference=paired_difference(*counts),
        p_value=mcnemar(gained, lost),
        tokens_ratio=ratio_interval(np.array([(other.tokens, one.tokens) for one, other in pairs], float)),
    )
