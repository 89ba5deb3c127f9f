"""Fixtures: the tiny model of tests/runtime."""

from ..runtime.conftest import tiny, write_tiny

__all__ = ["tiny", "write_tiny"]
