"""Types for a file of a given size, and rounding to them."""
