"""Many requests at once on one model: scheduling, prefix cache, streaming."""
