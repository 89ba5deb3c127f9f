"""Adapters from questions: rollouts, supervised training, and the natural policy gradient."""
