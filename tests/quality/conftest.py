"""The tiny models of the benchmarks' tests."""

from ..bench.conftest import not_a_model, tiny

__all__ = ["not_a_model", "tiny"]
