"""Proportions: the interval of one, and interval and test of two that were observed on the same cases."""

from collections import Counter
from collections.abc import Iterable
from math import sqrt
from statistics import NormalDist

from .interval import CONFIDENCE, Interval


def wilson_interval(part: float, whole: float) -> Interval:
    """The proportion part/whole with its interval at CONFIDENCE (E. Wilson, J. Am. Stat. Assoc. 22, 1927).

    Unlike the normal approximation and the bootstrap, it does not shrink to a point at 0 or 1.

    Args:
        part: the number of cases that have the property.
        whole: the number of cases, at least one.
    """
    z = NormalDist().inv_cdf((1 + CONFIDENCE) / 2)
    share, squared = part / whole, z * z / whole
    middle = (share + squared / 2) / (1 + squared)
    reach = z * sqrt(share * (1 - share) / whole + squared / whole / 4) / (1 + squared)
    return Interval(max(middle - reach, 0.0), share, min(middle + reach, 1.0))


def mcnemar(gained: int, lost: int) -> float:
    """The exact two-sided p-value of two models on the same questions (Q. McNemar, Psychometrika 12, 1947).

    Questions that both models got right, or both wrong, say nothing about a difference. Without a difference
    each of the others falls to either side like a coin. The binomial distribution is exact where its normal
    approximation needs more questions.

    Args:
        gained: questions that only the one model got right.
        lost: questions that only the other model got right.
    """
    total = gained + lost
    term = tail = 1  # integers throughout, so nothing is rounded
    for heads in range(min(gained, lost)):
        term = term * (total - heads) // (heads + 1)
        tail += term
    return min(1.0, 2 * tail / (1 << total))


def count_pairs(pairs: Iterable[tuple[bool, bool]]) -> tuple[int, int, int, int]:
    """Count the cases for paired_difference(), given whether each has the property in both observations."""
    counts = Counter(pairs)
    return counts[True, True], counts[False, True], counts[True, False], counts[False, False]


def paired_difference(both: float, gained: float, lost: float, neither: float) -> Interval:
    """The second proportion less the first, with its interval at CONFIDENCE.

    It is method 10 of R. Newcombe (Statistics in Medicine 17, 1998, pages 2635 to 2650): the Wilson intervals
    of both proportions, combined by the correlation of the pairs. Unlike the bootstrap it does not shrink to
    a point where hardly any case differs.

    Args:
        both: cases that have the property in both observations.
        gained: cases that have it in the second only.
        lost: cases that have it in the first only.
        neither: cases that have it in neither; there is at least one case in all.
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
