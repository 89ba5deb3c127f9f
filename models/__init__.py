"""Models: catalogue, downloads, published claims, training, tuning, and the shipped adapters."""
