"""Composition of several packages: the demo, conversions, adapter resolution, checks."""
