"""Whether charts can be drawn: matplotlib is an extra."""

import importlib.util

from ...errors import install_hint


def missing_matplotlib() -> str | None:
    """What to install to draw charts; None if matplotlib is there."""
    if importlib.util.find_spec("matplotlib"):
        return None
    return f"matplotlib, which draws the charts, is not installed: {install_hint('report')}"
