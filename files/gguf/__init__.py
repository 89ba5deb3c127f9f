"""GGUF files: the header, its metadata, and the shape of a model."""
