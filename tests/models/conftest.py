"""Fixtures of the tests of conversions and of the runtime."""

from ..convert.conftest import measured
from ..runtime.conftest import tiny, write_tiny

__all__ = ["measured", "tiny", "write_tiny"]
