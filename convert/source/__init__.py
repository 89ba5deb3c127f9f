"""Base checkpoints: their architecture, tensors and tokenizer."""
