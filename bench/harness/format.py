"""Units in tables and reports."""

NOT_AVAILABLE = "not available"


def megabytes(nbytes: float | None) -> str:
    """Bytes as millions of bytes."""
    return NOT_AVAILABLE if nbytes is None else f"{nbytes / 1e6:.1f}"


def seconds(duration_s: float | None) -> str:
    """Seconds, to the hundredth."""
    return NOT_AVAILABLE if duration_s is None else f"{duration_s:.2f}"
