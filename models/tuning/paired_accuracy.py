"""Paired comparison of two accuracies on the same questions."""

from dataclasses import dataclass

import numpy as np

from ...stats.bootstrap import mean_interval
from ...stats.interval import Interval


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
        """The difference in accuracy, with its bootstrap interval over questions."""
        return mean_interval(np.subtract(self.after, self.before, dtype=float))
