"""Formatting of quantities in tables and reports."""

NOT_AVAILABLE = "not available"


def megabytes(nbytes: float | None) -> str:
    """Format bytes in units of 10^6 bytes, with one decimal."""
    return NOT_AVAILABLE if nbytes is None else f"{nbytes / 1e6:.1f}"


def seconds(duration_s: float | None) -> str:
    """Format seconds with two decimals."""
    return NOT_AVAILABLE if duration_s is None else f"{duration_s:.2f}"
