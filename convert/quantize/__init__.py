"""Quantization: rounding to ggml types, and the choice of types for a file of a given size."""
