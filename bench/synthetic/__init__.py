"""Models of a given shape with random weights, for measuring speed and memory."""
