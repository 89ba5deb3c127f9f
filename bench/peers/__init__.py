"""Comparison with other inference programs on the same file, and with transformers on its checkpoint."""
