"""Wilson's interval of a proportion, which holds for few cases and for proportions near 0 and 1."""

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
