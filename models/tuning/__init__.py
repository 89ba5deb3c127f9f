"""Training of a few numbers by forward passes of the quantized model (CMA-ES)."""
