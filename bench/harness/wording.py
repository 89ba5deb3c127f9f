"""What intervals come to, in words."""

from math import ceil

from ...stats.interval import Interval
from ...stats.paired_ratio import RATIO_LEVEL

NOISE_MAX = 0.05  # an interval that reaches further than this to each side settles nothing


def describe_difference(what: str, ratio: Interval, *, more_is_better: bool) -> str:
    """Faster or slower and by how much, or that the run shows no difference."""
    changes = [100 * (bound - 1) for bound in (ratio.low, ratio.high)]
    if not ratio.excludes_one:
        low, high = changes
        return f"{what}: no difference that this run could show ({low:+.1f} to {high:+.1f} %)"
    word = "faster" if (ratio.estimate > 1) == more_is_better else "slower"
    low, high = sorted(map(abs, changes))
    return f"{what}: {word} by {100 * abs(ratio.estimate - 1):.1f} % ({low:.1f} to {high:.1f} %)"


def too_noisy(ratio: Interval) -> bool:
    """Whether the interval is too wide to settle anything."""
    return ratio.half_width > NOISE_MAX


def more_rounds(ratio: Interval, rounds: int) -> int:
    """About how many rounds more would make an interval narrow enough; 0 if it is.

    An interval narrows with the square root of the rounds, while the noise stays what it is.
    """
    needed = rounds * (ratio.half_width / NOISE_MAX) ** 2
    return max(0, ceil(needed - 1e-6) - rounds)


def describe_noise(what: str, ratio: Interval, rounds: int) -> str:
    """What to do about an interval that is too wide after so many rounds."""
    return (
        f"too noisy to settle: the {what} ratio's {RATIO_LEVEL} interval is ±{100 * ratio.half_width:.1f} % "
        f"wide, more than ±{100 * NOISE_MAX:.0f} %; about {more_rounds(ratio, rounds)} rounds more would "
        "settle it, or stopping what else is running"
    )
