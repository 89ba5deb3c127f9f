"""Prompts: the chat template, what stands around a question, and texts to tokens."""
