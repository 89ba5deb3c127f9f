"""Batch inference over a file of questions, with reproducible answers."""
