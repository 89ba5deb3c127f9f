"""Costs of a weight of each type on this processor."""
