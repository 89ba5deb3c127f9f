"""Estimates with confidence intervals: of means, of ratios, and of proportions observed in pairs."""

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from math import comb, sqrt
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from . import Doubles

CONFIDENCE = 0.95  # of intervals over texts, questions or rows
PASSAGES_MIN = 10  # with fewer, the intervals of the bootstrap are too narrow
RESAMPLES = 10_000
_SEED = 13
_BLOCK = 500  # resamples at a time
_BLOCK_NUMBERS = 1 << 21  # of units and resamples at a time, which bounds the memory

# A report has several ratios, and for two equal models almost no interval should exclude 1.00.
RATIO_CONFIDENCE = 0.99
RATIO_LEVEL = f"{100 * RATIO_CONFIDENCE:.0f} %"
ROUNDS_MIN = 8  # fewer cannot reach it: all rounds err to the same side in more than 1 of 100 runs
NOISE_MAX = 0.05  # half width of an interval above which a run is too noisy, even if it excludes 1

Passages = NDArray[np.int64] | NDArray[np.str_]


@dataclass(frozen=True, slots=True)
class Interval:
    """An estimate and the bounds of its interval; the function that makes it states the confidence."""

    low: float
    estimate: float
    high: float

    @property
    def excludes_one(self) -> bool:
        """Whether a ratio differs from 1 at the interval's confidence."""
        return not self.low <= 1.0 <= self.high

    @property
    def half_width(self) -> float:
        """Half the interval's width, as a fraction of the estimate."""
        return (self.high - self.low) / 2 / self.estimate

    def text(self, digits: int, scale: float = 1) -> str:
        """The estimate followed by the interval in brackets, both times `scale`."""
        low, estimate, high = (
            f"{scale * bound:.{digits}f}" for bound in (self.low, self.estimate, self.high)
        )
        return f"{estimate} ({low} to {high})"


def sum_by_passage(values: Doubles, passages: Passages) -> Doubles:
    """Sum values, (positions, …), by the number or name of their passage; (passages, …)."""
    numbers, place = np.unique(passages, return_inverse=True)
    sums = np.zeros((len(numbers), *values.shape[1:]))  # (passages, …)
    np.add.at(sums, place, values)
    return sums


def bootstrap_interval(sums: Doubles, figure: Callable[[Doubles], Doubles]) -> Interval:
    """Estimate a figure of independent units, with its percentile bootstrap interval at CONFIDENCE.

    Whole units are drawn, because the positions of one passage depend on each other (B. Efron and
    R. Tibshirani, An Introduction to the Bootstrap, 1993, chapters 8 and 13). All figures use the same draws.
    `figure` maps sums over all units, (n, …), to the figure, (n,).
    """
    random, units = np.random.default_rng(_SEED), len(sums)
    block = min(_BLOCK, max(_BLOCK_NUMBERS // units, 1))
    resampled = []
    for start in range(0, RESAMPLES, block):
        count = min(block, RESAMPLES - start)
        times = random.multinomial(units, np.full(units, 1 / units), count)  # (count, units)
        resampled.append(figure(np.asarray(np.tensordot(times, sums, 1), np.float64)))
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(np.concatenate(resampled), (tail, 1 - tail))
    return Interval(float(low), float(figure(sums.sum(0)[None])[0]), float(high))


def ratio_interval(sums: Doubles) -> Interval:
    """The ratio of the first column's total to the second's, with its bootstrap interval; (units, 2)."""
    return bootstrap_interval(sums, lambda totals: totals[..., 0] / totals[..., 1])


def grouped_mean(values: Doubles, groups: Passages) -> Interval:
    """The mean of values, (values,), with its bootstrap interval over their groups, (values,)."""
    return ratio_interval(sum_by_passage(np.stack((values, np.ones_like(values)), axis=1), groups))


def ratio_level(rounds: int) -> str:
    """How often the interval of paired_ratio() contains the true ratio; less often with few rounds."""
    return f"{100 * min(RATIO_CONFIDENCE, 1 - 0.5 ** (rounds - 1)):.0f} %"


def paired_ratio(base: Doubles, adapted: Doubles) -> Interval:
    """The ratio adapted/base with its interval at RATIO_CONFIDENCE, from one measure of each side per round.

    The estimate is the median of the means of all pairs of rounds, as logarithms (J. Hodges and E. Lehmann,
    1963): a few disturbed rounds do not move it. The interval holds the ratios that F. Wilcoxon's signed-rank
    test does not reject. It is exact for few rounds, which the bootstrap of a median is not.
    """
    assert base.shape == adapted.shape, "each round measures both sides"
    logs = np.log(adapted) - np.log(base)  # (rounds,)
    means = np.sort((logs[:, None] + logs)[np.triu_indices(len(logs))] / 2)  # (pairs,)
    outside = means_outside(len(logs))
    bounds = np.exp([means[outside], np.median(means), means[-1 - outside]])
    return Interval(*bounds.tolist())


@cache
def means_outside(rounds: int) -> int:
    """How many of the sorted means of pairs are outside the interval of paired_ratio(), at each end."""
    chances = np.ones(1)  # of each sum of the ranks of the rounds that err to one side
    for rank in range(1, rounds + 1):
        chances = (np.pad(chances, (0, rank)) + np.pad(chances, (rank, 0))) / 2
    tail = (1 - RATIO_CONFIDENCE) / 2
    return max(0, int(np.searchsorted(np.cumsum(chances), tail, side="right")) - 1)


def wilson_interval(part: float, whole: float) -> Interval:
    """The proportion part/whole with its interval at CONFIDENCE (E. Wilson, J. Am. Stat. Assoc. 22, 1927)."""
    z = NormalDist().inv_cdf((1 + CONFIDENCE) / 2)
    share, squared = part / whole, z * z / whole
    middle = (share + squared / 2) / (1 + squared)
    reach = z * sqrt(share * (1 - share) / whole + squared / whole / 4) / (1 + squared)
    return Interval(max(middle - reach, 0.0), share, min(middle + reach, 1.0))


def mcnemar(gained: int, lost: int) -> float:
    """The exact two-sided p-value of two models on questions (Q. McNemar, Psychometrika 12, 1947)."""
    total = gained + lost
    tail = sum(comb(total, heads) for heads in range(min(gained, lost) + 1))  # integers: nothing is rounded
    return min(1.0, 2 * tail / (1 << total))


def count_pairs(pairs: Iterable[tuple[bool, bool]]) -> tuple[int, int, int, int]:
    """Count the cases for paired_difference(), given whether each has the property in both observations."""
    counts = Counter(pairs)
    return counts[True, True], counts[False, True], counts[True, False], counts[False, False]


def paired_difference(both: float, gained: float, lost: float, neither: float) -> Interval:
    """The second proportion less the first, with its interval at CONFIDENCE, from counts of cases.

    Method 10 of R. Newcombe (Statistics in Medicine 17, 1998, pages 2635 to 2650): the Wilson intervals of
    both proportions, combined by the correlation of the pairs. It stays wide where few cases differ.
    `gained` have the property in the second observation only, `lost` in the first only.
    """
    total = both + gained + lost + neither
    first, second = wilson_interval(both + lost, total), wilson_interval(both + gained, total)
    correlation = _correlation(both, gained, lost, neither)
    difference = second.estimate - first.estimate
    down = _combine(second.estimate - second.low, first.high - first.estimate, correlation)
    up = _combine(second.high - second.estimate, first.estimate - first.low, correlation)
    return Interval(max(difference - down, -1.0), difference, min(difference + up, 1.0))  # by rounding errors


def _correlation(both: float, gained: float, lost: float, neither: float) -> float:
    """Phi of the pairs, with the paper's correction for continuity; 0 where it has no value."""
    product = (both + gained) * (lost + neither) * (both + lost) * (gained + neither)
    excess: float = both * neither - gained * lost
    if excess > 0:
        excess = max(excess - (both + gained + lost + neither) / 2, 0)
    return excess / sqrt(product) if product else 0.0


def _combine(one: float, other: float, correlation: float) -> float:
    return sqrt(max(one * one - 2 * correlation * one * other + other * other, 0.0))
