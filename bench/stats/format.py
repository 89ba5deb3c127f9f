"""Figures in the units that tables and reports show, and the word for those that there are none of."""

ABSENT = "not available"


def megabytes(nbytes: float | None) -> str:
    """Bytes, in millions of them."""
    return ABSENT if nbytes is None else f"{nbytes / 1e6:.1f}"


def seconds(taken: float | None) -> str:
    """Seconds, to the hundredth."""
    return ABSENT if taken is None else f"{taken:.2f}"
