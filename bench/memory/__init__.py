"""Load time and resident memory of a model, its size, and the memory roofline."""
