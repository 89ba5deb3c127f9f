"""Calibration: activation statistics and sensitivities for the importance matrix, by a decoder in float32."""
