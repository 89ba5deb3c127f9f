"""Two sides that were asked the same questions: how many each got right, and whether they differ."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

_BOOTSTRAPS = 10_000


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

    def interval(self, seed: int = 13) -> tuple[float, float]:
        """The 95 % interval of the difference in accuracy, by a bootstrap over questions."""
        difference = np.subtract(self.after, self.before, dtype=float)  # (questions,)
        return bootstrapped(difference, seed)


def bootstrapped(values: Sequence[float] | np.ndarray, seed: int = 13) -> tuple[float, float]:
    """The 95 % interval of the mean of some values."""
    array = np.asarray(values, float)
    drawn = np.random.default_rng(seed).integers(len(array), size=(_BOOTSTRAPS, len(array)))
    low, high = np.quantile(array[drawn].mean(axis=1), (0.025, 0.975))
    return float(low), float(high)
