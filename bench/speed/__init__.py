"""Latency, throughput and scaling of one model or of two."""
