"""Confidence: the calibrated probability that the value of an answer is right."""

from dataclasses import replace
from math import exp

from .answer import Answer


def with_confidence(answer: Answer, minimum: float) -> Answer:
    """The answer with its confidence; below the minimum it is not sure, and has no value."""
    confidence = _confidence(answer)
    if confidence >= minimum:
        return replace(answer, confidence=confidence)
    return replace(answer, confidence=confidence, sure=False, value=None)


def _confidence(answer: Answer) -> float:
    """Logistic regression on answers of Qwen2.5-Coder-0.5B, see docs/figures/quality.md.

    It looks at the margin of the leading value over the next one, of the answers so far and one more, and at
    whether the answer is grounded.
    """
    if answer.value is None:
        return 0.0
    first, second = answer.tally.counts if answer.tally else (1, 0)
    ended = answer.tally.ended if answer.tally else 1
    log_odds = -1.6 + 4.1 * (first - second) / (ended + 1) + 0.3 * answer.grounded
    return 1 / (1 + exp(-log_odds))
