"""Arithmetic in prose, read exactly: final answers, calculator, units."""
