"""Intervals and tests for paired measurements."""
