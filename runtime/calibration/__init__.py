"""Activation statistics and sensitivities, from which the importance matrix is made."""
