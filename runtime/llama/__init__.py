"""llama.cpp's low-level API: models, contexts, samplers, and the checks before native calls."""
