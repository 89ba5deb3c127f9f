"""Accuracy of a model and its base: question sets, prompts, evaluation, its log, and metrics."""
