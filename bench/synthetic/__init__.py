"""Models of given shapes with random weights, to measure speed and memory."""
