"""Result of learning from questions."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from ..stats.bootstrap import grouped_mean
from ..stats.interval import Interval
from ..stats.proportions import count_pairs, paired_difference
from .near_duplicates import masked_beginning
from .rollouts import QuestionRollouts


@dataclass(frozen=True)
class HeldOutAnswers:
    """Greedy answers to the questions that were set aside, in pairs: of the base, and with the adapter.

    Attributes:
        base: the answers of the base.
        adapted: those with the adapter.
    """

    base: Sequence[QuestionRollouts]
    adapted: Sequence[QuestionRollouts]

    @property
    def counts(self) -> tuple[int, int, int, int]:
        """Number of questions right before and after, only after, only before, and never."""
        return count_pairs(
            (one.right > 0, other.right > 0) for one, other in zip(self.base, self.adapted, strict=True)
        )

    @property
    def right(self) -> tuple[int, int]:
        """Number of right answers before and after."""
        both, gained, lost, _ = self.counts
        return both + lost, both + gained

    @property
    def tokens(self) -> tuple[float, float]:
        """Mean tokens of an answer before and after."""
        base, adapted = (
            sum(len(solution.tokens) for one in answers for solution in one.solutions) / len(answers)
            for answers in (self.base, self.adapted)
        )
        return base, adapted

    @property
    def difference(self) -> Interval:
        """The change of the fraction of right answers.

        Its bounds are the wider ones of two intervals: over questions, and over groups of near-duplicates,
        which an adapter tends to change alike.
        """
        pairs = zip(self.base, self.adapted, strict=True)
        changes = np.array([float(other.right > 0) - float(one.right > 0) for one, other in pairs])
        by_group = grouped_mean(changes, np.array([masked_beginning(one.question) for one in self.base]))
        by_question = paired_difference(*self.counts)
        return replace(
            by_question, low=min(by_question.low, by_group.low), high=max(by_question.high, by_group.high)
        )


@dataclass(frozen=True)
class LearnResult:
    """An adapter that was learned.

    Attributes:
        code: the adapter as a short code.
        base_id: name of its base.
        basis: id of its basis.
        numbers: number of trained numbers.
        asked: questions to which solutions were sampled.
        sometimes_right: those with right and wrong ones.
        solutions: solutions to those.
        max_tokens: maximum tokens of a solution or an answer.
        damping: of the Fisher matrix, as a fraction of its largest eigenvalue.
        expected: see NaturalStep.gain.
        in_folds: whether each part of the questions was answered by an adapter of the other parts.
        held_out: answers to the questions that were measured on.
        minutes: time since the last resume.
    """

    code: str
    base_id: str
    basis: str
    numbers: int
    asked: int
    sometimes_right: int
    solutions: int
    max_tokens: int
    damping: float
    expected: Interval
    in_folds: bool
    held_out: HeldOutAnswers
    minutes: float

    @property
    def verdict(self) -> str:
        """Whether the change of right answers is certain."""
        difference = self.held_out.difference
        if difference.low > 0:
            return "a certain gain"
        return "a certain loss: do not use it" if difference.high < 0 else "no certain gain"
