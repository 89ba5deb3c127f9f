"""Result of learning from questions."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from ..stats.intervals import Interval, count_pairs, grouped_mean, paired_difference
from .questions import Candidate, masked_beginning
from .rollouts import QuestionRollouts

_TOO_HARD = "a certain gain by the prompt alone: most questions are never right, so nothing was learned"
_TOO_EASY = "the prompt alone does it, and leaves too little to learn"


class AnswerPairs(NamedTuple):
    """Greedy answers to the same questions in pairs: before and after a change."""

    before: Sequence[QuestionRollouts]
    after: Sequence[QuestionRollouts]

    @property
    def counts(self) -> tuple[int, int, int, int]:
        """Number of questions right before and after, only after, only before, and never."""
        return count_pairs((one.right > 0, other.right > 0) for one, other in zip(*self, strict=True))

    @property
    def difference(self) -> Interval:
        """The change of the fraction of right answers, with the wider bounds of two intervals.

        They are over questions, and over groups of near-duplicates, which an adapter tends to change alike.
        """
        pairs = zip(*self, strict=True)
        changes = np.array([float(other.right > 0) - float(one.right > 0) for one, other in pairs])
        by_group = grouped_mean(changes, np.array([masked_beginning(one.question) for one in self.before]))
        by_question = paired_difference(*self.counts)
        return replace(
            by_question, low=min(by_question.low, by_group.low), high=max(by_question.high, by_group.high)
        )


class HeldOutAnswers(NamedTuple):
    """Greedy answers to the questions that were set aside: plain, with the prompt, with the adapter too."""

    base: Sequence[QuestionRollouts]
    prompted: Sequence[QuestionRollouts]
    adapted: Sequence[QuestionRollouts]

    @property
    def right(self) -> list[int]:
        """Number of right answers of each."""
        return [sum(one.right > 0 for one in answers) for answers in self]

    @property
    def tokens(self) -> list[float]:
        """Mean tokens of an answer of each."""
        return [
            sum(len(solution.tokens) for one in answers for solution in one.solutions) / len(answers)
            for answers in self
        ]

    @property
    def change(self) -> AnswerPairs:
        """The adapter with the prompt beside the base."""
        return AnswerPairs(self.base, self.adapted)

    @property
    def of_prompt(self) -> AnswerPairs:
        """The prompt alone beside the base."""
        return AnswerPairs(self.base, self.prompted)

    @property
    def of_adapter(self) -> AnswerPairs:
        """The adapter beside the prompt alone."""
        return AnswerPairs(self.prompted, self.adapted)


@dataclass(frozen=True)
class LearnedNumbers:
    """Numbers that were trained on top of the prompt: see NaturalStep for damping and expected gain."""

    code: str
    basis: str
    count: int
    solutions: int
    damping: float
    expected: Interval


@dataclass(frozen=True)
class LearnResult:
    """A prompt, and an adapter that was learned with it; None if the prompt left too little to learn.

    Attributes:
        asked: questions to which solutions were sampled.
        ranked: the prompts that were measured, the best first; empty without a search.
        searched: questions that the prompt was chosen on.
        in_folds: whether each part of the questions was answered by an adapter of the other parts.
        minutes: time since the last resume.
    """

    base_id: str
    asked: int
    sometimes_right: int
    never_right: int
    learned: LearnedNumbers | None
    max_tokens: int
    prompt: Candidate
    ranked: Sequence[Candidate]
    searched: int
    in_folds: bool
    held_out: HeldOutAnswers
    minutes: float

    @property
    def verdict(self) -> str:
        """Whether the change of right answers is certain: beside the prompt alone, or beside the base."""
        held = self.held_out
        above = held.of_adapter.difference
        beside = "" if self.prompt.prompt.is_bare else " above the best prompt"
        if not self.learned:
            return _TOO_HARD if 2 * self.never_right > self.asked else _TOO_EASY
        if held.change.difference.high < 0:
            return "a certain loss beside the base: do not use it"
        if above.low > 0:
            return f"a certain gain{beside}"
        if above.high < 0:
            return "a certain loss beside the prompt alone: do not use it"
        if held.of_prompt.difference.low > 0:
            return "the prompt alone does it: no certain gain above it"
        return f"no certain gain{beside}"
