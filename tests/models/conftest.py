"""The models of the runtime's tests."""

from ..runtime.conftest import tiny, write_tiny

__all__ = ["tiny", "write_tiny"]
