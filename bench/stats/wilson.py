"""A part of a whole, with an interval that holds for few cases and for parts near none or all."""

from math import sqrt
from statistics import NormalDist

from .paired_ratio import CONFIDENCE, Interval


def wilson_interval(part: int, whole: int) -> Interval:
    """The part and Wilson's interval of it (E. Wilson, J. Am. Stat. Assoc. 22, 1927).

    Unlike the usual interval and the bootstrap's, it is not empty where the part is nothing.

    Args:
        part: how many cases have the property.
        whole: how many there are, at least one.
    """
    z = NormalDist().inv_cdf((1 + CONFIDENCE) / 2)
    share, squared = part / whole, z * z / whole
    middle = (share + squared / 2) / (1 + squared)
    reach = z * sqrt(share * (1 - share) / whole + squared / whole / 4) / (1 + squared)
    return Interval(max(middle - reach, 0.0), share, min(middle + reach, 1.0))
