"""What intervals come to, in words."""

from .ratio import CONFIDENCE, Interval

NOISE_MAX = 0.05  # an interval that reaches further than this to each side settles nothing


def difference(what: str, ratio: Interval, *, more_is_better: bool) -> str:
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


def noise(what: str, ratio: Interval) -> str:
    """What to do about an interval that is too wide."""
    return (
        f"too noisy to settle: the {what} ratio's {CONFIDENCE:.0%} interval is ±{ratio.half_width:.1%} wide, "
        f"more than ±{NOISE_MAX:.0%}; take more rounds, or stop what else is running"
    ).replace("%", " %")
