"""Ratios and their intervals in words."""

from math import ceil

from ...stats.interval import Interval
from ...stats.paired_ratio import NOISE_MAX, RATIO_LEVEL


def describe_difference(what: str, ratio: Interval) -> str:
    """Say how much less or more time the second model takes, or that the difference is not significant."""
    low, high = (100 * (bound - 1) for bound in (ratio.low, ratio.high))
    if not ratio.excludes_one:
        return f"{what}: no significant difference ({low:+.1f} to {high:+.1f} %)"
    word = "slower" if ratio.estimate > 1 else "faster"
    low, high = sorted(map(abs, (low, high)))
    return f"{what}: {word} by {100 * abs(ratio.estimate - 1):.1f} % ({low:.1f} to {high:.1f} %)"


def more_rounds(half_width: float, rounds: int) -> int:
    """Estimate how many more rounds would make an interval narrow enough; 0 if it is.

    The width of an interval falls with the square root of their number.
    """
    needed = rounds * (half_width / NOISE_MAX) ** 2
    return max(0, ceil(needed - 1e-6) - rounds)


def describe_noise(what: str, ratio: Interval, rounds: int) -> str:
    """Say how wide an interval is after a number of rounds, and what would make it narrower."""
    half_width = ratio.half_width
    return (
        f"too noisy: the {RATIO_LEVEL} interval of the {what} ratio is ±{100 * half_width:.1f} % wide, "
        f"more than ±{100 * NOISE_MAX:.0f} %; take about {more_rounds(half_width, rounds)} more rounds, or "
        "stop other programs"
    )
