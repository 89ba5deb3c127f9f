"""Interval of the difference of two proportions that were observed on the same cases."""

from collections import Counter
from collections.abc import Iterable
from math import sqrt

from .interval import Interval
from .wilson import wilson_interval


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
