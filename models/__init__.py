"""Models: catalogue, downloads, training rows, and the shipped adapters."""
