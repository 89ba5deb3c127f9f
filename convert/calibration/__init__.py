"""Calibration: activation statistics and sensitivities for the importance matrix."""
