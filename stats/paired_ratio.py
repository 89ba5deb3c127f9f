"""The ratio of two measures, paired by round, with its confidence interval."""

from functools import cache

import numpy as np

from .arrays import Doubles
from .interval import Interval

# A report has several ratios, and for two equal models almost no interval should exclude 1.00.
RATIO_CONFIDENCE = 0.99
RATIO_LEVEL = f"{100 * RATIO_CONFIDENCE:.0f} %"
ROUNDS_MIN = 8  # fewer cannot reach it: all rounds err to the same side in more than 1 of 100 runs
NOISE_MAX = 0.05  # half width of a ratio's interval above which a run is too noisy


def ratio_level(rounds: int) -> str:
    """How often the interval of paired_ratio() contains the true ratio: RATIO_LEVEL, or less with few rounds.

    Then the interval spans all rounds. It misses if all err to the same side.
    """
    return f"{100 * min(RATIO_CONFIDENCE, 1 - 0.5 ** (rounds - 1)):.0f} %"


def paired_ratio(base: Doubles, adapted: Doubles) -> Interval:
    """The ratio adapted/base with its interval at RATIO_CONFIDENCE, from one measure of each side per round.

    Both measures of a round are close together in time, so what slows the machine for seconds slows both and
    cancels. The estimate is that of J. Hodges and E. Lehmann (Estimates of location based on rank tests,
    1963): the median of the means of all pairs of rounds, as logarithms. A few disturbed rounds do not move
    it. The interval holds the ratios that F. Wilcoxon's signed-rank test does not reject. It assumes only
    that errors are symmetric, which holds where equal models take turns, and it is exact for few rounds. (The
    percentile bootstrap of the median is not: in simulations its 95 % interval contained the true ratio in 88
    to 95 of 100 runs.)

    Args:
        base: positive measures, (rounds,). With fewer than ROUNDS_MIN the interval is as wide as they allow,
            and still contains the true ratio less often: see ratio_level().
        adapted: the same number of positive measures, in the same unit.
    """
    assert base.shape == adapted.shape, "each round measures both sides"
    logs = np.log(adapted) - np.log(base)  # (rounds,)
    means = np.sort((logs[:, None] + logs)[np.triu_indices(len(logs))] / 2)  # (pairs,)
    outside = _outside(len(logs))
    bounds = np.exp([means[outside], np.median(means), means[-1 - outside]])
    return Interval(*bounds.tolist())


def too_noisy(ratio: Interval) -> bool:
    """Whether the interval is too wide for a conclusion, even if it excludes 1."""
    return ratio.half_width > NOISE_MAX


@cache
def _outside(rounds: int) -> int:
    """How many of the sorted means of pairs are outside the interval, at each end."""
    chances = np.ones(1)  # of each sum of the ranks of the rounds that err to one side
    for rank in range(1, rounds + 1):
        chances = (np.pad(chances, (0, rank)) + np.pad(chances, (rank, 0))) / 2
    tail = (1 - RATIO_CONFIDENCE) / 2
    return max(0, int(np.searchsorted(np.cumsum(chances), tail, side="right")) - 1)
