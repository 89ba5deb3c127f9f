"""How many times one measure another is, with an interval: paired by round."""

from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

CONFIDENCE = 0.95  # of intervals over texts or questions
# Of intervals over rounds: a report has several, and of equal sides hardly one is to exclude 1.00.
RATIO_CONFIDENCE = 0.99
RATIO_LEVEL = f"{100 * RATIO_CONFIDENCE:.0f} %"
ROUNDS_MIN = 8  # fewer cannot reach that: all of them err to the same side in more than 1 of 100 runs
RESAMPLES = 10_000
SEED = 13

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Interval:
    """An estimate, and an interval around it; its maker says how many of such have the true value in them."""

    low: float
    estimate: float
    high: float

    @property
    def excludes_one(self) -> bool:
        """Whether the two sides differ, as far as this interval tells."""
        return not self.low <= 1.0 <= self.high

    @property
    def half_width(self) -> float:
        """How far the interval reaches to each side on average, as a part of the estimate."""
        return (self.high - self.low) / 2 / self.estimate

    def text(self, digits: int, scale: float = 1) -> str:
        """The estimate and, in brackets, the interval, times `scale`."""
        low, estimate, high = (
            f"{scale * bound:.{digits}f}" for bound in (self.low, self.estimate, self.high)
        )
        return f"{estimate} ({low} to {high})"


def paired_ratio(base: Array, adapted: Array) -> Interval:
    """The ratio adapted/base, from a measure of both sides in each round.

    The two measures of a round stand close together in time: what slows the machine for seconds slows both
    and falls out of the round's ratio. The estimate is that of J. Hodges and E. Lehmann (Estimates of
    location based on rank tests, 1963): the median of the means of all pairs of rounds, as logarithms, which
    a few disturbed rounds do not move. The interval belongs to it: the ratios that F. Wilcoxon's signed-rank
    test does not reject. It asks for no more than that a round errs to either side alike, as it must where
    the sides are equal and only take turns, and is exact however few the rounds. (The percentile bootstrap of
    the median takes the rounds for all that there could be: in simulations, its 95 % interval contained the
    true ratio in 88 to 95 of 100 runs.)

    Args:
        base: positive measures, (rounds,). Of fewer than ROUNDS_MIN the interval is as wide as they can make
            it, and yet contains the true ratio less often than RATIO_CONFIDENCE says.
        adapted: as many, in the same unit.
    """
    assert base.shape == adapted.shape, "each round has a measure of either side"
    logs = np.log(adapted) - np.log(base)  # (rounds,)
    means = np.sort((logs[:, None] + logs)[np.triu_indices(len(logs))] / 2)  # (pairs,)
    outside = _outside(len(logs))
    bounds = np.exp([means[outside], np.median(means), means[-1 - outside]])
    return Interval(*bounds.tolist())


@cache
def _outside(rounds: int) -> int:
    """How many of the sorted means of pairs lie outside the interval, at each end."""
    chances = np.ones(1)  # of each sum of the ranks of those rounds that err to one side
    for rank in range(1, rounds + 1):
        chances = (np.pad(chances, (0, rank)) + np.pad(chances, (rank, 0))) / 2
    tail = (1 - RATIO_CONFIDENCE) / 2
    return max(0, int(np.searchsorted(np.cumsum(chances), tail, side="right")) - 1)
