"""From a base checkpoint and a trained adapter to one quantized GGUF."""
