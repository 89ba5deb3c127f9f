"""Effort: how many answers are sampled to a question, and when their majority is certain.

Answers are sampled until the leading value is certain to stay ahead (Aggarwal et al., "Let's Sample
Step by Step: Adaptive-Consistency", 2023, arXiv 2305.11860). The paper's Beta criterion: under a uniform
prior, after v1 answers with the leading value and v2 with the next, the first is the likelier one with the
probability P(X <= v1), where X is binomial with v1 + v2 + 1 trials of 1/2.
"""

from dataclasses import dataclass, replace
from enum import StrEnum
from math import comb, exp, log

from ..errors import RequestError, shorten

# Logistic regression of votes, by answers of Qwen2.5-Coder-0.5B; see docs/figures.md.
CONFIDENCE = {"intercept": -4.8, "certainty": 5.7, "grounded": 0.68}


@dataclass(frozen=True, slots=True)
class VotingRule:
    """How many answers are sampled at most, and when fewer are enough."""

    answers: int = 1  # maximum answers
    width: int = 1  # how many of them are sampled at once, at most
    certainty: float = 1.0  # that the leading value is the likelier one: enough
    examples: int = 0  # how many of the first are sampled after worked examples, which makes them short
    sure: float = 0.0  # certainty up to which more are sampled, while the missing ones can bring it

    def is_decided(self, first: int, second: int, missing: int) -> bool:
        """Whether `first` votes against `second` are certain, or the missing answers cannot change it."""
        certain, possible = (majority_certainty(votes, second) for votes in (first, first + missing))
        decided = first > second + missing or certain >= self.certainty
        return decided and not certain < self.sure <= possible

    def wave(self, first: int, second: int, missing: int) -> int:
        """How many answers are sampled next where a question waits for all of them, as in batches.

        No more than can decide: as many as would if all agreed with the leader. All, if all are wanted.
        """
        counts = range(1, missing + 1)
        deciding = (n for n in counts if self.is_decided(first + n, second, missing - n))
        return missing if self.width == self.answers else min(next(deciding), self.width)

    def until(self, confidence: float) -> "VotingRule":
        """The rule that samples on until a grounded answer can be so sure, from 0 and below 1."""
        if not confidence:
            return self
        log_odds = log(confidence / (1 - confidence)) - CONFIDENCE["intercept"] - CONFIDENCE["grounded"]
        return replace(self, sure=log_odds / CONFIDENCE["certainty"])


def majority_certainty(first: int, second: int) -> float:
    """Probability that the value with `first` votes is likelier than the one with `second`."""
    trials = first + second + 1
    return float(sum(comb(trials, at) for at in range(first + 1)) / 2**trials)


def vote_confidence(first: int, second: int, grounded: bool) -> float:
    """Calibrated probability that the value with `first` votes is right, where the next one has `second`.

    For `grounded`, see answer.py.
    """
    log_odds = CONFIDENCE["intercept"] + CONFIDENCE["certainty"] * majority_certainty(first, second)
    return 1 / (1 + exp(-log_odds - CONFIDENCE["grounded"] * grounded))


def parse_effort(name: object) -> "Effort":
    """The effort of a name, or a RequestError."""
    try:
        return Effort(name)  # type: ignore[arg-type]
    except ValueError:
        raise RequestError(f"effort must be {', '.join(Effort)}, not {shorten(name)}") from None


class Effort(StrEnum):
    """How much is computed for an answer."""

    LOW = "low"
    MEDIUM = "medium"
    HIGH = "high"

    def for_question(self, question: str) -> "Effort":
        """The effort that a question gets: low without a number in it, since there is nothing to vote on."""
        from .arithmetic.equations import has_number  # noqa: PLC0415 - see answer.read_value()

        return self if self.votes and has_number(question) else Effort.LOW

    @property
    def votes(self) -> bool:
        """Whether several answers are sampled."""
        return self is not Effort.LOW

    @property
    def rule(self) -> VotingRule:
        """How many answers are sampled."""
        return _RULES[self]


_RULES = {
    Effort.LOW: VotingRule(),
    Effort.MEDIUM: VotingRule(8, 4, 0.85, examples=7),
    Effort.HIGH: VotingRule(10, 4, 0.9, examples=8),
}
