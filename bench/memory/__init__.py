"""Load time, resident memory, energy, and the smallest memory limit that a model runs in."""
