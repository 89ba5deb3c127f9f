"""Texts to measure models on: passages, their tokens, and the probabilities that a model gives them."""
