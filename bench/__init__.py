"""Benchmarks of an adapted model against its base."""
