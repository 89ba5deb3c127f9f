"""Batch inference and serving on a Ray cluster."""
