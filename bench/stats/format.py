"""Figures in the units that tables and reports show, and the word for those that there are none of."""

NOT_AVAILABLE = "not available"


def megabytes(nbytes: float | None) -> str:
    """Bytes, in millions of them."""
    return NOT_AVAILABLE if nbytes is None else f"{nbytes / 1e6:.1f}"


def seconds(taken: float | None) -> str:
    """Seconds, to the hundredth."""
    return NOT_AVAILABLE if taken is None else f"{taken:.2f}"
