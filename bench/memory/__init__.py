"""Load time, resident memory and energy of a model, and the smallest memory limit that it runs in."""
