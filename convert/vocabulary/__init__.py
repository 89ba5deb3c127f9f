"""Smaller vocabularies: which tokens of a base a file keeps, and the base with only these."""
