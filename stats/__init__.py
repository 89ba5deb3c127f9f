"""Intervals and tests for paired measurements, and the names of the two kinds of arrays of numbers."""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]  # weights, activations, logits
Doubles = NDArray[np.float64]  # sums, probabilities, measurements
