"""Gradient-free training of a few numbers with CMA-ES, by forward passes of the quantized model."""
