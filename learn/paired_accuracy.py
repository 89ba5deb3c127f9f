"""Paired comparison of two accuracies on the same questions."""

from collections import Counter
from dataclasses import dataclass

from ..stats.interval import Interval
from ..stats.paired_difference import paired_difference


@dataclass(frozen=True)
class PairedAccuracy:
    """Correctness on the same questions before and after tuning; each tuple has one entry per question."""

    before: tuple[bool, ...]
    after: tuple[bool, ...]

    @property
    def accuracy(self) -> tuple[float, float]:
        """The fraction of right answers, before and after."""
        return sum(self.before) / len(self.before), sum(self.after) / len(self.after)

    @property
    def gained(self) -> int:
        """The number of questions that are right only after."""
        return sum(after and not before for before, after in zip(self.before, self.after, strict=True))

    @property
    def lost(self) -> int:
        """The number of questions that are right only before."""
        return sum(before and not after for before, after in zip(self.before, self.after, strict=True))

    @property
    def difference(self) -> Interval:
        """The difference in accuracy, with its interval over questions."""
        pairs = Counter(zip(self.before, self.after, strict=True))
        return paired_difference(
            both=pairs[True, True],
            gained=pairs[False, True],
            lost=pairs[True, False],
            neither=pairs[False, False],
        )
