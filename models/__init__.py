"""Models: catalogue, downloads, published claims, training rows, and the shipped adapters."""
