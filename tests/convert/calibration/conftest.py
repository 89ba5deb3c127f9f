"""The models of the runtime's tests."""

from ...runtime.conftest import smollm2, tiny, write_tiny

__all__ = ["smollm2", "tiny", "write_tiny"]
