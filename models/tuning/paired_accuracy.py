"""Two sides that were asked the same questions: how many each got right, and whether they differ."""

from dataclasses import dataclass

import numpy as np

from ...stats.bootstrap import mean_interval
from ...stats.interval import Interval


@dataclass(frozen=True)
class PairedAccuracy:
    """Right or wrong on the same questions, before and after; each tuple has one entry a question."""

    before: tuple[bool, ...]
    after: tuple[bool, ...]

    @property
    def accuracy(self) -> tuple[float, float]:
        """The part that was right, before and after."""
        return sum(self.before) / len(self.before), sum(self.after) / len(self.after)

    @property
    def gained(self) -> int:
        """How many are right only after."""
        return sum(now and not then for then, now in zip(self.before, self.after, strict=True))

    @property
    def lost(self) -> int:
        """How many were right only before."""
        return sum(then and not now for then, now in zip(self.before, self.after, strict=True))

    @property
    def difference(self) -> Interval:
        """The difference in accuracy, with its bootstrap interval over questions."""
        return mean_interval(np.subtract(self.after, self.before, dtype=float))
