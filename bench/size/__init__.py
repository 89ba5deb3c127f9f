"""File size by tensor and type, and KL divergence against file size."""
