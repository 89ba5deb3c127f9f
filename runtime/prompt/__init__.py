"""Prompts: the chat template in a process of its own, and texts to tokens."""
