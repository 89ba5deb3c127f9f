"""Latency, throughput and scaling of one model or two."""
